"""``hoarfrost abinit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hoarfrost.cli.options import (
    Device,
    Diameter,
    ForceRun,
    MaxResolution,
    Root,
    RunOutput,
    Seed,
    Symmetry,
    Threads,
    as_typed,
    use_threads,
)
from hoarfrost.cli.summary import show_summary
from hoarfrost.reconstruct.settings import Preset
from hoarfrost.runs.abinit import forecast, run_abinit
from hoarfrost.runs.machine import compute_device
from hoarfrost.runs.presets import ab_initio_settings
from hoarfrost.runs.ready import look_over


def command(
    particles: Annotated[Path, typer.Argument(help="A particle table (.star, .cs) or stack (.mrcs, .txt list).")],
    output: RunOutput,
    symmetry: Symmetry = "C1",
    classes: Annotated[int, typer.Option(min=1, max=8, help="Maps among which the particles are divided.")] = 1,
    preset: Annotated[Preset, typer.Option(help="How much work to put in.")] = "default",
    max_resolution: MaxResolution = None,
    diameter: Diameter = None,
    seed: Seed = 0,
    root: Root = None,
    threads: Threads = None,
    device: Device = "cpu",
    force: ForceRun = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only look the stack over, and say what to expect.")
    ] = False,
) -> None:
    """Find poses and a map of particles that have none.

    Writes map.mrc, half1.mrc, half2.mrc, mask.mrc, particles.star, fsc.csv, report.html and run.json into a folder; with
    several classes the maps of each go into class1, class2, ..., the largest first.
    The same command goes on after an interruption, and never overwrites another run without --force.
    """
    use_threads(threads)
    config = ab_initio_settings(
        preset, symmetry=symmetry, classes=classes, max_resolution=max_resolution, diameter=diameter, seed=seed
    )
    if dry_run:
        ready = look_over(particles, config, limit=max(config.levels), root=root, workspace=output)
        for level, line in ready.remarks:
            print(f"{level}: {line}")
        print(forecast(ready))
        return
    folder = run_abinit(
        particles,
        output,
        config,
        console=Console(stderr=True),
        root=root,
        device=compute_device(device),
        force=force,
        command=as_typed(),
    )
    show_summary(folder, Console())
