"""``hoarfrost flip``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from hoarfrost.analysis.postprocess import flip, flip_poses
from hoarfrost.cli.options import Force
from hoarfrost.cli.outputs import require_new
from hoarfrost.errors import InputError
from hoarfrost.io.files import all_or_none
from hoarfrost.io.mrc import read_map, write_map
from hoarfrost.io.particles import read_particles, write_particles
from hoarfrost.types import Particles, Volume

_TABLES = ("particles.star", "particles.cs")


def command(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_MAP", help="A run's folder, or a map.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A new folder; for a single map without --particles, a map.")
    ],
    particles: Annotated[Path | None, typer.Option(help="The table (.star, .cs) whose poses go with the map.")] = None,
    force: Force = False,
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
    # All is read before anything is written: a run with half of its maps mirrored would be worse than none.
    flipped = [(_flipped(old), new) for old, new in pairs]
    with all_or_none([new for _, new in flipped]):
        for mirrored, new in flipped:
            _write(mirrored, new)
    Console().print("wrote " + escape(", ".join(str(new) for _, new in pairs)), soft_wrap=True)


def _flipped(path: Path) -> Volume | Particles:
    if path.suffix not in (".star", ".cs"):
        return flip(read_map(path))
    particles = read_particles(path, require_images=False)
    if particles.poses is None:
        raise InputError(f"{path}: has no poses to mirror; give the table whose poses go with the map")
    return flip_poses(particles)


def _write(mirrored: Volume | Particles, path: Path) -> None:
    if isinstance(mirrored, Volume):
        write_map(path, mirrored)
    else:
        write_particles(mirrored, path)
