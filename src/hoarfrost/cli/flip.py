"""``hoarfrost flip``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from hoarfrost.analysis.postprocess import flip, flip_poses
from hoarfrost.cli.outputs import require_new
from hoarfrost.errors import InputError
from hoarfrost.io.mrc import read_map, write_map
from hoarfrost.io.particles import read_particles, write_particles

_TABLES = ("particles.star", "particles.cs")


def command(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_MAP", help="A run's folder, or a map.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A new folder; for a single map without --particles, a map.")
    ],
    particles: Annotated[Path | None, typer.Option(help="The table (.star, .cs) whose poses go with the map.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace outputs that exist.")] = False,
) -> None:
    """Change the hand: mirror maps through the plane z = 0, and the poses with them.

    A run's folder gives a new folder with its maps, half-maps, mask and particles. The images fit both hands equally
    well; only something of known hand (helices, a known structure) tells which is right.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    if source.is_dir() or particles is not None:
        maps = sorted(source.glob("*.mrc")) if source.is_dir() else [source]
        tables = [source / name for name in _TABLES if (source / name).exists()] if particles is None else [particles]
        if not maps:
            raise InputError(f"{source}: holds no map (.mrc); give a run's folder or a map")
        pairs = [(path, output / path.name) for path in [*maps, *tables]]
    else:
        pairs = [(source, output)]
    require_new([new for _, new in pairs], force)
    for old, new in pairs:
        _make_folder(new.parent)
        _flipper(old)(old, new)
    Console().print("wrote " + escape(", ".join(str(new) for _, new in pairs)), soft_wrap=True)


def _flipper(path: Path) -> Callable[[Path, Path], None]:
    return _flip_table if path.suffix in (".star", ".cs") else _flip_map


def _flip_map(old: Path, new: Path) -> None:
    write_map(new, flip(read_map(old)))


def _flip_table(old: Path, new: Path) -> None:
    write_particles(flip_poses(read_particles(old, require_images=False)), new)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be made: {error.strerror}; choose another place for it") from error
