"""Options that several verbs share, and what is done with them before the work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, TypeAlias

import torch
import typer

RunOutput: TypeAlias = Annotated[
    Path, typer.Option("--output", "-o", help="Folder of the run; made if it is not there.")
]
Symmetry: TypeAlias = Annotated[str, typer.Option(help="Point group: C1, C3, D7, T, O, I, ...")]
MaxResolution: TypeAlias = Annotated[
    float | None, typer.Option(help="Go no further than this, in Å.", show_default="where the half-maps end")
]
Diameter: TypeAlias = Annotated[
    float | None, typer.Option(help="Diameter of the particle in Å.", show_default="estimated")
]
Seed: TypeAlias = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of everything random.")]
Root: TypeAlias = Annotated[Path | None, typer.Option(help="A folder where the images are looked for as well.")]
Threads: TypeAlias = Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="all cores")]
Device: TypeAlias = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; GPUs are untested so far.")]
ForceRun: TypeAlias = Annotated[bool, typer.Option("--force", help="Replace another run that stands in the folder.")]

Force: TypeAlias = Annotated[bool, typer.Option("--force", help="Replace outputs that exist.")]


def use_threads(threads: int | None) -> None:
    """Work with so many threads; with all cores where none are given."""
    if threads is not None:
        torch.set_num_threads(threads)


def as_typed() -> tuple[str, ...]:
    """The command line, for the record of a run."""
    return ("hoarfrost", *sys.argv[1:])
