"""Particles from any source, and back with every column: the door between files and :class:`Particles`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from hoarfrost.errors import InputError
from hoarfrost.io.cryosparc import CryosparcTable
from hoarfrost.io.files import existing_file
from hoarfrost.io.images import MissingImages, MrcImages
from hoarfrost.io.mrc import read_header
from hoarfrost.io.paths import file_names, resolve_files
from hoarfrost.io.relion import RelionTable
from hoarfrost.io.table import ImageNames, ParticleTable, StackTable
from hoarfrost.types import ImageSource, ImageSubset, Particles

logger = logging.getLogger("hoarfrost")

_TABLES: dict[str, type[RelionTable] | type[CryosparcTable]] = {".star": RelionTable, ".cs": CryosparcTable}
_STACKS = (".mrcs", ".mrc", ".map", ".st")


def read_particles(
    path: Path | str,
    *,
    root: Path | str | None = None,
    passthrough: Sequence[Path | str] = (),
    require_images: bool = True,
) -> Particles:
    """Read a particle stack; images stay on disk until they are asked for.

    Parameters
    ----------
    path : a RELION ``.star``, a cryoSPARC ``.cs``, a bare ``.mrcs``/``.mrc``/``.map``, or a ``.txt`` list of stacks.
        Bare stacks have no CTF: their transfer function is one, and their pixel size is the header's.
    root : where to look for images as well, beside the table's folder and the two above it.
    passthrough : further ``.cs`` files of the same job; found by themselves next to the table.
    require_images : raise if image files are missing; else they are missed only when images are read.

    Raises
    ------
    InputError
        Names the file, the row or column, what was expected, and what to try.
    """
    path = existing_file(Path(path))
    table = _read_table(path, [Path(other) for other in passthrough])
    half, classes = table.half(), table.classes()
    images: MrcImages | MissingImages | None = None
    pixel_size = table.pixel_size()
    if pixel_size is None:
        images = _find_images(table, root, require_images)
        pixel_size = _header_pixel_size(path, images)
    # What is wrong with a table is said before thousands of stacks are opened.
    optics, poses = table.optics(pixel_size), table.poses(pixel_size)
    if images is None:
        images = _find_images(table, root, require_images)
    return Particles(
        images=images, optics=optics, poses=poses, half=half, classes=classes, junk=table.junk(), source=table
    )


def write_particles(particles: Particles, path: Path | str, *, like: Path | str | None = None) -> None:
    """Write a particle table, ``.star`` or ``.cs`` by the name's ending.

    Every column, block, image path and ``uid`` of the source stays as it stands; poses, shifts, halves, classes,
    confidence and changed CTF values take their columns, and values that did not change keep their text. What the
    particles do not have (poses, halves, ...) has no column. A change of format, or particles without a table, gives
    a new RELION 3.1 table or ``.cs`` file.

    Parameters
    ----------
    particles : what to write.
    path : the new file; it appears whole or not at all.
    like : a table of the same particles in the same order, whose columns are taken instead of the source's.

    Raises
    ------
    InputError
        Another ending, a table of another length, images that are in no file, or a place that cannot be written.
    """
    path = Path(path)
    source: ParticleTable | None = particles.source if like is None else _read_table(existing_file(Path(like)), [])
    if source is not None and len(source) != len(particles):
        raise InputError(f"{source.path}: {len(source)} rows, but {len(particles)} particles are to be written")
    if path.suffix.lower() not in _TABLES:
        raise InputError(f"{path}: particles are written as .star or .cs")
    kind = _TABLES[path.suffix.lower()]
    table: ParticleTable
    if isinstance(source, kind):
        table = source.updated(particles)
    else:
        table = kind.from_particles(particles, _image_names(particles, source, path), path)
    table.write(path)


def _read_table(path: Path, passthrough: Sequence[Path]) -> ParticleTable:
    suffix = path.suffix.lower()
    if suffix == ".star":
        return RelionTable.read(path)
    if suffix == ".cs":
        return CryosparcTable.read(path, passthrough)
    if suffix == ".txt":
        return _stack_table(path, _listed(path))
    if suffix in _STACKS:
        return _stack_table(path, [path.name])
    raise InputError(
        f"{path}: unknown kind of particle file; expected .star, .cs, .mrcs, .mrc or a .txt list of stacks"
    )


def _listed(path: Path) -> list[str]:
    """The lines of a list of stacks, without blanks and comments."""
    text = path.read_text(errors="replace")
    if "\0" in text:
        raise InputError(f"{path}: holds binary data; a .txt file with one stack's name a line is expected")
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _stack_table(path: Path, listed: list[str]) -> StackTable:
    if not listed:
        raise InputError(f"{path}: lists no stacks; one file name a line is expected")
    unknown = ImageNames(tuple(listed), np.arange(len(listed)), np.zeros(len(listed), np.int64))
    counts = [read_header(file).shape[0] for file in resolve_files(unknown, path, None)]
    file = np.repeat(np.arange(len(listed)), counts)
    index = np.concatenate([np.arange(count) for count in counts])
    return StackTable(path, ImageNames(tuple(listed), file, index))


def _find_images(table: ParticleTable, root: Path | str | None, require: bool) -> MrcImages | MissingImages:
    names = table.image_names()
    try:
        files = resolve_files(names, table.path, None if root is None else Path(root))
    except InputError as error:
        if require:
            raise
        return MissingImages(len(table), table.box(), str(error))
    return _open_images(table, names, files)


def _open_images(table: ParticleTable, names: ImageNames, files: Sequence[Path]) -> MrcImages:
    file = torch.from_numpy(names.file)
    images = MrcImages(files, file, torch.from_numpy(np.maximum(names.index, 0)), table.path)
    unnumbered = np.flatnonzero(names.index < 0)
    for row in unnumbered:
        header = images.headers[names.file[row]]
        if header.shape[0] != 1:
            raise InputError(
                f"{table.path}: row {row + 1}: {names.files[names.file[row]]} holds {header.shape[0]} sections and the "
                "table does not say which; 'number@stack' is expected (subtomograms are not supported)"
            )
    stated = table.box()
    if stated is not None and stated != images.box:
        raise InputError(
            f"{table.path}: states images of {stated} pixels, but {files[0]} has {images.box}; "
            "do stack and table belong together?"
        )
    return images


def _header_pixel_size(path: Path, images: MrcImages | MissingImages) -> torch.Tensor:
    if isinstance(images, MissingImages):
        raise InputError(f"{path}: states no pixel size, and the stack that might is not there: {images.reason}")
    size = images.header_pixel_size
    if size <= 0:
        raise InputError(
            f"{path}: no pixel size, neither in a table nor in the stack's header; give a .star file with "
            "rlnImagePixelSize, or set it in the header"
        )
    logger.warning("%s: the pixel size %.4g Å is taken from the stack's header", path, size)
    return torch.full((len(images),), size, dtype=torch.float64)


def _image_names(particles: Particles, source: ParticleTable | None, path: Path) -> ImageNames:
    """Image names for a new table: as the old table had them, or those of the stacks themselves."""
    if isinstance(particles.images, MissingImages) and particles.box == 0:
        raise InputError(
            f"{path}: a new table has to state the size of the images, which the old one does not, and the images "
            f"are not there: {particles.images.reason}"
        )
    if source is not None and not isinstance(source, StackTable):
        return source.image_names()
    images: ImageSource = particles.images
    rows = np.arange(len(particles))
    while isinstance(images, ImageSubset):
        rows = images.rows.numpy()[rows]
        images = images.parent
    if not isinstance(images, MrcImages):
        raise InputError(f"{path}: the images are in no file; write them with write_stack and read them back first")
    files = file_names([header.path for header in images.headers], path)
    return ImageNames(tuple(files), images.file, images.index)[rows]
