"""A particle table looked over: what every run on images does before it begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from hoarfrost.data.forecast import readable_size
from hoarfrost.data.preflight import Preflight, inspect
from hoarfrost.io.images import MrcImages
from hoarfrost.io.particles import read_particles
from hoarfrost.reconstruct.settings import RunConfig
from hoarfrost.runs.manifest import MANIFEST_NAME, InputRecord, Manifest, stacks_record, table_record
from hoarfrost.runs.progress import logged_warnings
from hoarfrost.runs.running import Session
from hoarfrost.types import Particles

Config = TypeVar("Config", bound=RunConfig)


@dataclass(frozen=True)
class Ready(Generic[Config]):
    """A stack that was looked over, and the settings that follow from it."""

    particles: Particles
    config: Config
    preflight: Preflight
    inputs: tuple[InputRecord, ...]
    notes: tuple[str, ...] = ()  # what reading the files gave cause to warn of

    @property
    def remarks(self) -> Iterator[tuple[str, str]]:
        """Level and text of all that was noticed, the notes first."""
        yield from (("warning", note) for note in self.notes)
        yield from ((finding.level, finding.line) for finding in self.preflight.findings)

    def announce(self, session: Session) -> None:
        """Say all that was noticed."""
        for level, line in self.remarks:
            (session.warn if level == "warning" else session.say)(line)

    def forecast(self, work: str) -> str:
        """The size of the stack, the work on it in a few words, and what it takes, in one line."""
        particles, expected = self.particles, self.preflight.forecast
        disk = f", and {readable_size(expected.disk)} of disk while it runs" if expected.disk else ""
        return (
            f"{len(particles):,} particles, box {particles.box} at {particles.pixel_size:.4g} Å: {work}, "
            f"{readable_size(expected.memory)} of memory{disk}"
        )


def look_over(
    table: Path,
    config: Config,
    *,
    limit: int | None = None,
    root: Path | None = None,
    workspace: Path | None = None,
    stored: bool = True,
) -> Ready[Config]:
    """Read a particle table, and refuse a stack that a run would be in vain on.

    Dark particles are noticed here: the settings returned say that images are to be inverted.

    Parameters
    ----------
    table : the particles, in any form that :func:`hoarfrost.io.particles.read_particles` knows.
    limit : band limit of the transformed images, for the forecast; all of the band without it.
    root : where to look for images as well; for the table of a run, beside the table that the run was given.
    workspace : the folder of the run.
    stored : whether the transformed images are stored there.
    """
    notes: list[str] = []
    with logged_warnings(notes.append):
        particles = read_particles(table, root=root or images_of_run(table))
    preflight = inspect(
        particles,
        diameter=config.diameter,
        symmetry=config.symmetry,
        seed=config.seed,
        resolution=config.max_resolution,
        limit=limit,
        workspace=workspace,
        stored=stored,
    ).sound()
    if preflight.dark_particles:
        config = config.model_copy(update={"invert": True})
    return Ready(particles, config, preflight, input_records(table, particles), tuple(notes))


def images_of_run(table: Path) -> Path | None:
    """Where the images of a table that a run wrote may be: beside the table that this run, or the first of a line, read.

    Tables keep the image paths that they were given, and those may have been meant from their own folder.
    """
    seen: set[Path] = set()
    place: Path | None = None
    while (table.parent / MANIFEST_NAME).exists() and table.parent not in seen:
        seen.add(table.parent)
        record = Manifest.read(table.parent)
        stacks = [name for name in record.files if name.endswith(".mrcs")]
        if record.inputs:
            table = Path(record.inputs[0].path)
            place = table.parent
        elif stacks:
            place = table.parent / Path(stacks[0]).parent
    return place


def input_records(table: Path, particles: Particles) -> tuple[InputRecord, ...]:
    """What tells this table and its stacks from others."""
    images = particles.images
    stacks = [header.path for header in images.headers] if isinstance(images, MrcImages) else []
    if not stacks or stacks == [table]:
        return (stacks_record([table]),) if stacks else (table_record(table),)
    return table_record(table), stacks_record(stacks)
