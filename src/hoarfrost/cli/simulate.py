"""``hoarfrost simulate``."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from hoarfrost.cli.options import Force
from hoarfrost.cli.outputs import require_new
from hoarfrost.data.acquisition import Microscope, Noise, Views
from hoarfrost.data.builtin import builtin_complex
from hoarfrost.data.density import fitting_pixel_size
from hoarfrost.data.simulate import Model, SimulatedStack, map_names, simulate
from hoarfrost.errors import InputError
from hoarfrost.io.atoms import is_atomic_model, read_atoms, read_ensemble
from hoarfrost.io.mrc import read_map
from hoarfrost.io.particles import read_particles


class Colour(StrEnum):
    """Noise spectra."""

    white = "white"
    coloured = "coloured"


def command(
    models: Annotated[
        list[str], typer.Argument(help="mmCIF, PDB (gzipped or not) or MRC; several for several classes; or 'builtin'.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    n: Annotated[int, typer.Option(min=1, help="Images.")] = 5000,
    box: Annotated[int, typer.Option(min=16, help="Side of an image in pixels.")] = 128,
    apix: Annotated[
        float | None, typer.Option(min=0.05, help="Å per pixel; if absent, so that the molecule fills two thirds.")
    ] = None,
    snr: Annotated[
        float, typer.Option(help="Variance of the signal over that of the noise, whole image; inf for no noise.")
    ] = 0.1,
    shift: Annotated[float, typer.Option(min=0.0, help="Particles lie off centre by up to this, pixels.")] = 10.0,
    defocus: Annotated[tuple[float, float], typer.Option(help="Least and greatest defocus, Å.")] = (8000.0, 25000.0),
    astigmatism: Annotated[float, typer.Option(min=0.0, help="Up to this difference of defocus U and V, Å.")] = 500.0,
    b_factor: Annotated[float, typer.Option(min=0.0, help="Envelope of the images, Å².")] = 0.0,
    voltage: Annotated[float, typer.Option(help="kV.")] = 300.0,
    cs: Annotated[float, typer.Option(help="Spherical aberration, mm.")] = 2.7,
    amplitude_contrast: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of amplitude contrast.")] = 0.1,
    preferred: Annotated[
        float, typer.Option(min=0.0, help="Concentration of the views about three directions; 0 for uniform views.")
    ] = 0.0,
    tilt: Annotated[tuple[float, float], typer.Option(help="Only views between these tilts, degrees.")] = (0.0, 180.0),
    noise: Annotated[Colour, typer.Option(help="Spectrum of the noise.")] = Colour.white,
    junk: Annotated[float, typer.Option(min=0.0, help="Share of images without a particle.")] = 0.0,
    weights: Annotated[str | None, typer.Option(help="How frequent the models are, e.g. 2,1,1.")] = None,
    all_models: Annotated[
        bool, typer.Option("--all-models", help="Every model of a file is a class, not only the first.")
    ] = False,
    like: Annotated[Path | None, typer.Option(help="A table whose optics, and poses if it has them, are used.")] = None,
    invert: Annotated[bool, typer.Option("--invert", help="Particles dark on bright.")] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Same seed, same stack.")] = 0,
    force: Force = False,
) -> None:
    """Simulate a particle stack from atomic models or maps, and keep the truth.

    Writes particles.mrcs and particles.star without poses, truth.star with them, and truth.mrc (truth_1.mrc, ... for
    several models). In truth.star junk has class 0, and hoarfrostJunk is 1 for pure noise and 2 for blobs.
    """
    listed = [model for name in models for model in _read_models(name, all_models)]
    outputs = ("particles.mrcs", "particles.star", "truth.star", *map_names(len(listed)))
    require_new([output / name for name in outputs], force)
    pixel_size = apix or max(fitting_pixel_size(model, box) for model in listed)
    stack = simulate(
        listed,
        count=n,
        box=box,
        pixel_size=pixel_size,
        views=Views(concentration=preferred, tilt=(math.radians(tilt[0]), math.radians(tilt[1]))),
        microscope=Microscope(
            voltage=voltage,
            spherical_aberration=cs,
            amplitude_contrast=amplitude_contrast,
            defocus=defocus,
            astigmatism=astigmatism,
            b_factor=b_factor,
        ),
        noise=Noise(snr, "white" if noise is Colour.white else "coloured"),
        shift_px=shift,
        weights=None if weights is None else _numbers(weights),
        junk_fraction=junk,
        like=None if like is None else read_particles(like, require_images=False),
        invert=invert,
        generator=torch.Generator().manual_seed(seed),
    )
    table = _write(stack, output)
    classes = f", {len(listed)} classes" if len(listed) > 1 else ""
    Console().print(
        f"{escape(str(table))}: {n} images of {box} pixels at {pixel_size:g} Å, SNR {snr:g}{classes}", soft_wrap=True
    )


def _read_models(name: str, all_models: bool) -> list[Model]:
    if name == "builtin":
        return [builtin_complex()]
    if not is_atomic_model(name):
        return [read_map(name)]
    return [*read_ensemble(name)] if all_models else [read_atoms(name)]


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--weights {text}: numbers separated by commas are expected, e.g. 2,1,1") from None


def _write(stack: SimulatedStack, folder: Path) -> Path:
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("images", total=len(stack))
        return stack.write(folder, progress=lambda done: progress.update(task, completed=done))
