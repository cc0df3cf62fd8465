"""``hoarfrost demo``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from hoarfrost.cli.abinit import show_summary
from hoarfrost.reconstruct.ab_initio import Preset
from hoarfrost.runs.demo import run_demo
from hoarfrost.runs.presets import ab_initio_settings


def command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; made if it is not there.")] = Path(
        "demo"
    ),
    particles: Annotated[int, typer.Option(min=200, help="How many images to simulate.")] = 4000,
    preset: Annotated[Preset, typer.Option(help="How much work to put in.")] = "default",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of everything random.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="all cores")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace another run that stands in the folder.")] = False,
) -> None:
    """Simulate a small data set of a built-in complex, solve it without its poses, and score the result.

    Leaves what abinit leaves, the stack and the truth in truth/, and the errors of poses and map in scores.json.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    console = Console()
    folder = run_demo(
        output,
        ab_initio_settings(preset, seed=seed),
        particles=particles,
        console=Console(stderr=True),
        force=force,
        command=("hoarfrost", *sys.argv[1:]),
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
