"""``hoarfrost refine``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from rich.console import Console

from hoarfrost.cli.abinit import show_summary
from hoarfrost.reconstruct.settings import Preset
from hoarfrost.runs.machine import compute_device
from hoarfrost.runs.presets import refine_settings
from hoarfrost.runs.refine import run_refine


def command(
    particles: Annotated[Path, typer.Argument(help="A particle table (.star, .cs), with poses or without.")],
    reference: Annotated[Path, typer.Option("--map", help="The map (.mrc) to begin with.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; made if it is not there.")],
    mask: Annotated[
        Path | None,
        typer.Option(help="Density outside this mask (.mrc, 0 to 1) takes no part.", show_default="made from the map"),
    ] = None,
    symmetry: Annotated[str, typer.Option(help="Point group of the map: C1, C3, D7, T, O, I, ...")] = "C1",
    low_pass: Annotated[float, typer.Option(help="Å; no more of the map is used to begin with.")] = 40.0,
    search: Annotated[
        Literal["auto", "global", "local"],
        typer.Option(help="Seek all poses, or refine those of the table; auto refines where there are poses."),
    ] = "auto",
    preset: Annotated[Preset, typer.Option(help="How much work to put in.")] = "default",
    max_resolution: Annotated[
        float | None, typer.Option(help="Go no further than this, in Å.", show_default="where the half-maps end")
    ] = None,
    diameter: Annotated[
        float | None, typer.Option(help="Diameter of the particle in Å.", show_default="estimated from the map")
    ] = None,
    b_factor: Annotated[
        float | None,
        typer.Option(help="Å²; sharpen with this, negative to sharpen.", show_default="by a Guinier plot"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of everything random.")] = 0,
    root: Annotated[Path | None, typer.Option(help="A folder where the images are looked for as well.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="all cores")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; GPUs are untested so far.")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Replace another run that stands in the folder.")] = False,
) -> None:
    """Refine poses and map of particles, from a map, with the two halves of the data kept apart.

    Writes map.mrc, half1.mrc, half2.mrc, mask.mrc, sharpened.mrc, local_resolution.mrc, particles.star, fsc.csv,
    report.html and run.json into a folder. Halves in the table are kept. The same command goes on after an
    interruption, and never overwrites another run without --force.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    config = refine_settings(
        preset,
        symmetry=symmetry,
        low_pass=low_pass,
        search=search,
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
        command=("hoarfrost", *sys.argv[1:]),
    )
    show_summary(folder, Console())
