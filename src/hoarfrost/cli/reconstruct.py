"""``hoarfrost reconstruct``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from hoarfrost.cli.options import (
    Device,
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
from hoarfrost.reconstruct.settings import Method
from hoarfrost.runs.machine import compute_device
from hoarfrost.runs.presets import reconstruct_settings
from hoarfrost.runs.reconstruct import run_reconstruct


def command(
    particles: Annotated[Path, typer.Argument(help="A particle table (.star, .cs) with poses.")],
    output: RunOutput,
    method: Annotated[Method, typer.Option(help="How a map is made of the images.")] = "backprojection",
    mask: Annotated[
        Path | None,
        typer.Option(
            help="Where density is sought and half-maps are compared (.mrc, 0 to 1).", show_default="made from the map"
        ),
    ] = None,
    symmetry: Symmetry = "C1",
    diameter: Annotated[
        float | None, typer.Option(help="Diameter of the particle in Å.", show_default="that of the box")
    ] = None,
    max_resolution: MaxResolution = None,
    poses: Annotated[
        Literal["fixed", "refine"], typer.Option(help="Keep the poses of the table, or refine them as well.")
    ] = "fixed",
    contrast: Annotated[
        bool, typer.Option("--contrast", help="Measure how strongly each particle shows, and weigh it by that.")
    ] = False,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Maps made one after another, poses or contrast being measured between.",
            show_default="1; 2 with --contrast, 5 with --poses refine",
        ),
    ] = None,
    gaussians: Annotated[
        int | None,
        typer.Option(min=8, help="How many Gaussians a mixture has.", show_default="by the particle's volume"),
    ] = None,
    anisotropic: Annotated[
        bool, typer.Option("--anisotropic/--isotropic", help="Gaussians have axes of their own, or are balls.")
    ] = True,
    start: Annotated[
        Literal["density", "random"],
        typer.Option(help="Draw Gaussians from the density of their half, or from nothing but its size."),
    ] = "density",
    preset: Annotated[
        Literal["default", "images", "published"],
        typer.Option(help="Fit Gaussians to sums over all images, or train them on images: in batches, or one by one."),
    ] = "default",
    seed: Seed = 0,
    root: Root = None,
    threads: Threads = None,
    device: Device = "cpu",
    force: ForceRun = False,
) -> None:
    """Half-maps and a validated map of particles whose poses are known.

    Writes map.mrc, half1.mrc, half2.mrc, mask.mrc, particles.star, fsc.csv, report.html and run.json into a folder,
    and gaussians.ply and gaussians.cif where the method is gaussians.
    Halves in the table are kept. The same command goes on after an interruption, and never overwrites another run
    without --force.
    """
    use_threads(threads)
    config = reconstruct_settings(
        method=method,
        symmetry=symmetry,
        diameter=diameter,
        max_resolution=max_resolution,
        poses=poses,
        contrast=contrast,
        epochs=epochs,
        gaussians=gaussians,
        anisotropic=anisotropic,
        start=start,
        preset=preset,
        seed=seed,
    )
    folder = run_reconstruct(
        particles,
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
