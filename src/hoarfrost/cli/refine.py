"""``hoarfrost refine``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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
from hoarfrost.runs.machine import compute_device
from hoarfrost.runs.presets import refine_settings
from hoarfrost.runs.refine import run_refine


def command(
    particles: Annotated[Path, typer.Argument(help="A particle table (.star, .cs), with poses or without.")],
    reference: Annotated[Path, typer.Option("--map", help="The map (.mrc) to begin with.")],
    output: RunOutput,
    mask: Annotated[
        Path | None,
        typer.Option(help="Density outside this mask (.mrc, 0 to 1) takes no part.", show_default="made from the map"),
    ] = None,
    symmetry: Symmetry = "C1",
    low_pass: Annotated[float, typer.Option(help="Å; no more of the map is used to begin with.")] = 40.0,
    search: Annotated[
        Literal["auto", "global", "local"],
        typer.Option(help="Seek all poses, or refine those of the table; auto refines where there are poses."),
    ] = "auto",
    defocus: Annotated[
        Literal["none", "group", "particle"],
        typer.Option(help="Refine the defocus of each optics group or particle once the poses have settled."),
    ] = "none",
    contrast: Annotated[
        bool, typer.Option("--contrast", help="Measure how strongly each particle shows, and weigh it by that.")
    ] = False,
    preset: Annotated[Preset, typer.Option(help="How much work to put in.")] = "default",
    max_resolution: MaxResolution = None,
    diameter: Diameter = None,
    b_factor: Annotated[
        float | None,
        typer.Option(help="Å²; sharpen with this, negative to sharpen.", show_default="by a Guinier plot"),
    ] = None,
    seed: Seed = 0,
    root: Root = None,
    threads: Threads = None,
    device: Device = "cpu",
    force: ForceRun = False,
) -> None:
    """Refine poses and map of particles, from a map, with the two halves of the data kept apart.

    Writes map.mrc, half1.mrc, half2.mrc, mask.mrc, sharpened.mrc, local_resolution.mrc, particles.star, fsc.csv,
    report.html and run.json into a folder. Halves in the table are kept; refined defocus values and contrasts go into
    the columns rlnDefocusU, rlnDefocusV and rlnCtfScalefactor. The same command goes on after an interruption, and
    never overwrites another run without --force.
    """
    use_threads(threads)
    config = refine_settings(
        preset,
        symmetry=symmetry,
        low_pass=low_pass,
        search=search,
        defocus=defocus,
        contrast=contrast,
        max_resolution=max_resolution,
        diameter=diameter,
        b_factor=b_factor,
        seed=seed,
    )
    folder = run_refine(
        particles,
        reference,
        output,
        config,
        console=Console(stderr=True),
        mask=mask,
        root=root,
        device=compute_device(device),
        force=force,
        command=as_typed(),
    )
    show_summary(folder, Console())
