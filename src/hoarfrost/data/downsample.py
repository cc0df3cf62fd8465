"""Smaller boxes by Fourier cropping: maps, and stacks together with their table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.errors import InputError
from hoarfrost.fourier.transforms import resample_centred
from hoarfrost.io.files import all_or_none
from hoarfrost.io.images import MrcImages
from hoarfrost.io.mrc import holds_map, read_header, read_map, write_map, write_stack
from hoarfrost.io.particles import read_particles, write_particles
from hoarfrost.io.table import ImageNames
from hoarfrost.types import ImageSource, Particles, Volume

_CHUNK_PIXELS = 2**24


def downsample_map(volume: Volume, box: int) -> Volume:
    """Crop the transform of a cubic map to ``box`` (even or odd) voxels a side.

    Values are kept as in a resampling: a constant stays that constant. The origin, voxel ``floor(D/2)``, stays where
    it is in space, and the voxel size grows by ``D / box``.

    Raises
    ------
    InputError
        A map that is not a cube, or a box that is not smaller.
    """
    _check(box, volume.box)
    data = resample_centred(volume.data, box, (0, 1, 2))
    return Volume(data, volume.voxel_size * volume.box / box)


def downsample_particles(particles: Particles, box: int, stack: Path) -> Particles:
    """Crop the transforms of all images to ``box`` (even or odd) pixels and write them to one new stack.

    Values are kept as in :func:`downsample_map`. The stack is written in chunks, so that memory does not grow with
    it. The particles returned read from the new stack; their table names it (by its bare name: write the table to
    the same folder) and has the new image and pixel sizes, and origins in pixels to match.

    Raises
    ------
    InputError
        A box that is not smaller, or a stack that cannot be written.
    """
    old_box = particles.box
    _check(box, old_box)
    binning = old_box / box
    write_stack(
        stack,
        _resampled(particles.images, box),
        count=len(particles),
        box=box,
        pixel_size=particles.pixel_size * binning,
    )
    rows = torch.arange(len(particles))
    images = MrcImages([stack], torch.zeros_like(rows), rows)
    source = particles.source
    if source is not None:
        names = ImageNames((stack.name,), np.zeros(len(rows), np.int64), rows.numpy())
        source = source.moved(names, box, binning)
    optics = particles.optics.replace(pixel_size=particles.optics.pixel_size * binning)
    return particles.replace(images=images, optics=optics, source=source)


def downsample_file(
    source: Path, output: Path, box: int, *, root: Path | None = None, replace: bool = False
) -> tuple[Path, ...]:
    """Downsample a map, a stack or a table with its stack; return the files written.

    A stack comes with a table and a table with a stack: ``name.mrcs`` beside ``name.star`` or ``name.cs``.

    Raises
    ------
    InputError
        An output that exists (unless ``replace``) or has an ending that does not fit the source.
    """
    if source.suffix.lower() not in (".star", ".cs", ".txt") and holds_map(read_header(source)):
        if output.suffix.lower() not in (".mrc", ".map"):
            raise InputError(f"{output}: {source} is a map, so the output should end in .mrc")
        _refuse_existing([output], replace)
        smaller = downsample_map(read_map(source), box)
        with all_or_none([output]):
            write_map(output, smaller)
        return (output,)
    table = output if output.suffix.lower() in (".star", ".cs") else output.with_suffix(".star")
    stack = output.with_suffix(".mrcs")
    if output not in (table, stack):
        raise InputError(f"{output}: {source} holds particles, so the output should end in .mrcs, .star or .cs")
    _refuse_existing([stack, table], replace)
    particles = read_particles(source, root=root)
    images = particles.images
    if stack.exists() and isinstance(images, MrcImages) and any(h.path.samefile(stack) for h in images.headers):
        raise InputError(f"{stack}: is one of the stacks being read; choose another name")
    with all_or_none([stack, table]):
        write_particles(downsample_particles(particles, box, stack), table)
    return stack, table


def _refuse_existing(paths: Sequence[Path], replace: bool) -> None:
    for path in paths:
        if path.exists() and not replace:
            raise InputError(f"{path}: exists; give --force to replace it, or another name")


def _resampled(images: ImageSource, box: int) -> Iterator[Float[Tensor, "b y x"]]:
    chunk = max(1, _CHUNK_PIXELS // images.box**2)
    for rows in torch.arange(len(images)).split(chunk):
        yield resample_centred(images.read(rows), box, (1, 2))


def _check(box: int, old: int) -> None:
    if box >= old:
        raise InputError(f"box {box} is not smaller than {old}; downsampling only makes images smaller")
    if box < 4:
        raise InputError(f"box {box} is too small to hold an image; at least 4 is needed")
