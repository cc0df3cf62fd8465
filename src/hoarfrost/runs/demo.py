"""The run behind ``hoarfrost demo``: a simulated stack, solved blindly, and scored against what it was made from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from hoarfrost.analysis.metrics import Scores, evaluate
from hoarfrost.data.builtin import builtin_complex
from hoarfrost.data.simulate import Noise, simulate
from hoarfrost.io.files import replacing
from hoarfrost.io.mrc import read_map
from hoarfrost.io.particles import read_particles
from hoarfrost.reconstruct.result import AbInitioResult
from hoarfrost.reconstruct.settings import AbInitioConfig
from hoarfrost.runs.abinit import conclude, forecast, reconstruct_into
from hoarfrost.runs.folder import RunFolder
from hoarfrost.runs.ready import look_over
from hoarfrost.runs.running import Session, run_in

BOX = 96
PIXEL_SIZE = 2.2  # Å
SNR = 0.1
SHIFT_PX = 8.0
TRUTH = "truth"

_SIMULATED = ("truth.mrc", "particles.mrcs", "particles.star", "truth.star")


def run_demo(
    output: Path,
    config: AbInitioConfig,
    *,
    particles: int,
    console: Console,
    force: bool = False,
    command: Sequence[str] = (),
) -> RunFolder:
    """Simulate a stack of the built-in complex, find poses and map without the truth, and score them.

    The folder is that of an ab initio run, with the stack and the truth in ``truth/`` and the scores in
    ``scores.json``. Like any run it goes on where it was interrupted.
    """

    def work(folder: RunFolder, session: Session) -> None:
        table = _simulate_into(folder, particles, config.seed, session)
        ready = look_over(table, config, limit=max(config.levels), workspace=folder.cache)
        session.say(forecast(ready))
        result = reconstruct_into(folder, ready, session)
        session.say("comparing with the truth")
        conclude(folder, result, ready.config, _score(folder, result).to_dict())

    settings = {"particles": particles, "box": BOX, "pixel_size": PIXEL_SIZE, "snr": SNR} | config.model_dump()
    return run_in(output, "demo", settings, (), work, console=console, force=force, command=command)


def _simulate_into(folder: RunFolder, count: int, seed: int, session: Session) -> Path:
    """The blind table of the simulated stack; made once."""
    files = [folder.output(f"{TRUTH}/{name}") for name in _SIMULATED]
    # The true table is written last, so that the stack is complete where it stands.
    if not files[-1].exists():
        session.say(f"simulating {count:,} images of the built-in complex at a signal-to-noise ratio of {SNR:g}")
        stack = simulate(
            builtin_complex(),
            count=count,
            box=BOX,
            pixel_size=PIXEL_SIZE,
            noise=Noise(SNR),
            shift_px=SHIFT_PX,
            generator=torch.Generator().manual_seed(seed),
        )
        stack.write(folder.path / TRUTH)
    return folder.path / TRUTH / "particles.star"


def _score(folder: RunFolder, result: AbInitioResult) -> Scores:
    truth = folder.path / TRUTH
    scores = evaluate(
        result.particles,
        read_particles(truth / "truth.star"),
        map=result.map,
        half_maps=result.half_maps,
        mask=result.mask,
        truth_map=read_map(truth / "truth.mrc"),
        symmetry=result.symmetry,
    )
    with replacing(folder.output("scores.json")) as temporary:
        temporary.write_text(json.dumps(scores.to_dict(), indent=2) + "\n", encoding="utf-8")
    return scores
