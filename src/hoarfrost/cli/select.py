"""``hoarfrost select``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from jaxtyping import Bool
from rich.console import Console
from rich.markup import escape
from torch import Tensor

from hoarfrost.cli.options import Force
from hoarfrost.cli.outputs import require_new, require_place
from hoarfrost.errors import InputError
from hoarfrost.io.particles import read_particles, write_particles
from hoarfrost.types import Particles

_TABLES = ("particles.star", "particles.cs")


def command(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_TABLE", help="A run's folder, or a table (.star, .cs).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The table of the subset (.star, .cs).")],
    confidence: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Keep poses that are at least this probably right.",
            show_default="all",
        ),
    ] = None,
    classes: Annotated[
        list[int] | None, typer.Option("--class", help="Keep this class; give it again for more.", show_default="all")
    ] = None,
    junk: Annotated[
        Literal["keep", "drop"], typer.Option(help="Drop images that more likely than not show no particle.")
    ] = "keep",
    best: Annotated[
        float | None,
        typer.Option(help="Keep this share of what is left, the surest poses.", show_default="all"),
    ] = None,
    force: Force = False,
) -> None:
    """Write a subset of the particles, with every column of their table and in its order."""
    require_new([output], force)
    require_place([output])
    if best is not None and not 0 < best <= 1:
        raise InputError(f"--best {best:g}: a share above 0 and up to 1 is expected, e.g. 0.8")
    table = _table(source, output)
    particles = read_particles(table, require_images=False)
    kept = chosen(particles, table, confidence=confidence, classes=classes, drop_junk=junk == "drop", best=best)
    rows = kept.nonzero()[:, 0]
    if len(rows) == 0:
        raise InputError(f"{table}: none of {len(particles):,} particles is left; choose less strictly")
    write_particles(particles[rows], output)
    share = 100 * len(rows) / len(particles)
    Console().print(
        f"{escape(str(output))}: {len(rows):,} of {len(particles):,} particles ({share:.1f} %)", soft_wrap=True
    )


def chosen(
    particles: Particles,
    table: Path,
    *,
    confidence: float | None,
    classes: list[int] | None,
    drop_junk: bool,
    best: float | None,
) -> Bool[Tensor, "n"]:
    """Which particles meet every condition."""
    kept = torch.ones(len(particles), dtype=torch.bool)
    if classes:
        if particles.classes is None:
            raise InputError(f"{table}: has no classes (rlnClassNumber) for --class; leave it out")
        there = particles.classes.unique().tolist()
        for number in classes:
            if number not in there:
                raise InputError(f"{table}: holds no class {number}; there are {', '.join(map(str, there))}")
        kept &= torch.isin(particles.classes, torch.tensor(classes))
    if drop_junk:
        if particles.junk is None:
            raise InputError(f"{table}: does not say what is junk (hoarfrostJunkProbability); leave out --junk")
        kept &= particles.junk <= 0.5
    if confidence is not None or best is not None:
        surety = None if particles.poses is None else particles.poses.confidence
        if surety is None:
            raise InputError(
                f"{table}: has no confidences (rlnMaxValueProbDistribution); leave out --confidence and --best, or "
                "search all orientations (abinit --preset default, refine --search global)"
            )
        if confidence is not None:
            kept &= surety >= confidence
        if best is not None:
            order = surety.masked_fill(~kept, -1.0).argsort(descending=True, stable=True)
            first = torch.zeros_like(kept)
            first[order[: round(best * int(kept.sum()))]] = True
            kept &= first
    return kept


def _table(source: Path, output: Path) -> Path:
    """The table itself, or of a run the one of the output's kind."""
    if not source.is_dir():
        return source
    there = [source / name for name in _TABLES if (source / name).exists()]
    if not there:
        raise InputError(f"{source}: holds neither {' nor '.join(_TABLES)}; give the table itself")
    return next((path for path in there if path.suffix == output.suffix), there[0])
