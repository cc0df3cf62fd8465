"""``hoarfrost demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hoarfrost.cli.options import ForceRun, RunOutput, Seed, Threads, as_typed, use_threads
from hoarfrost.cli.summary import show_summary
from hoarfrost.reconstruct.settings import Preset
from hoarfrost.runs.demo import run_demo
from hoarfrost.runs.presets import ab_initio_settings


def command(
    output: RunOutput = Path("demo"),
    particles: Annotated[int, typer.Option(min=200, help="How many images to simulate.")] = 4000,
    preset: Annotated[Preset, typer.Option(help="How much work to put in.")] = "default",
    seed: Seed = 0,
    threads: Threads = None,
    force: ForceRun = False,
) -> None:
    """Simulate a small data set of a built-in complex, solve it without its poses, and score the result.

    Leaves what abinit leaves, the stack and the truth in truth/, and the errors of poses and map in scores.json.
    """
    use_threads(threads)
    console = Console()
    folder = run_demo(
        output,
        ab_initio_settings(preset, seed=seed),
        particles=particles,
        console=Console(stderr=True),
        force=force,
        command=as_typed(),
    )
    show_summary(folder, console)
    scores = folder.manifest.results["scores"]
    rotation, shift = scores["rotation_deg"], scores["shift_px"]["after_origin"]
    console.print(
        f"Against the truth: median error of the rotations {rotation['median']:.2f}°, "
        f"{100 * rotation['below_10']:.1f} % within 10°, mean error of the shifts {shift:.2f} px.",
        highlight=False,
        soft_wrap=True,
    )
