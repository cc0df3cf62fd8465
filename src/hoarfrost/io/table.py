"""What every particle table can do, whichever program wrote it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.errors import InputError
from hoarfrost.types import Optics, Particles, Poses


@dataclass(frozen=True)
class ImageNames:
    """Where a table says its images are: particle ``i`` is image ``index[i]`` (from 0) of ``files[file[i]]``.

    An index of -1 stands for a name without a number, good for a file that holds a single image.
    """

    files: tuple[str, ...]
    file: np.ndarray
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: np.ndarray) -> ImageNames:
        used, file = np.unique(self.file[rows], return_inverse=True)
        return ImageNames(tuple(self.files[i] for i in used), file.astype(np.int64), self.index[rows])

    def relion(self) -> list[str]:
        """``000012@stack.mrcs``, counted from 1."""
        return [f"{index + 1:06d}@{self.files[file]}" for index, file in zip(self.index, self.file, strict=True)]


@runtime_checkable
class ParticleTable(Protocol):
    """The rows of a particle file with all their columns; what :class:`Particles` carries as ``source``."""

    @property
    def path(self) -> Path:
        """The file the rows came from."""
        ...

    def image_names(self) -> ImageNames:
        """Where the images are, as the table puts it."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Int[Tensor, "b"]) -> ParticleTable: ...

    def box(self) -> int | None:
        """Side of the images as the table states it."""
        ...

    def pixel_size(self) -> Float[Tensor, "n"] | None:
        """Å per pixel of each image, where the table states it."""
        ...

    def optics(self, pixel_size: Float[Tensor, "n"]) -> Optics:
        """What the microscope did, checked for impossible values."""
        ...

    def poses(self, pixel_size: Float[Tensor, "n"]) -> Poses | None:
        """Rotations, shifts and confidence where the table has them."""
        ...

    def half(self) -> Int[Tensor, "n"] | None:
        """1 or 2, 0 for neither."""
        ...

    def classes(self) -> Int[Tensor, "n"] | None:
        """Class of each particle, from 1."""
        ...

    def junk(self) -> Float[Tensor, "n"] | None:
        """Probability that an image shows no particle."""
        ...

    def updated(self, particles: Particles) -> ParticleTable:
        """The same rows and columns with the poses, halves, classes and defoci of ``particles``."""
        ...

    def moved(self, names: ImageNames, box: int, binning: float) -> ParticleTable:
        """The same rows for images resampled to ``box``, their pixels ``binning`` times as large, stored elsewhere."""
        ...

    def write(self, path: Path) -> None:
        """Write the table; the file appears whole or not at all."""
        ...


@dataclass(frozen=True)
class StackTable:
    """A stack, or a list of stacks, without any table: images and nothing else."""

    path: Path
    names: ImageNames

    def __len__(self) -> int:
        return len(self.names)

    def image_names(self) -> ImageNames:
        """All images of all stacks, in order."""
        return self.names

    def __getitem__(self, rows: Int[Tensor, "b"]) -> StackTable:
        return StackTable(self.path, self.names[rows.numpy()])

    def box(self) -> int | None:
        """Only the stack's header knows."""
        return None

    def pixel_size(self) -> Float[Tensor, "n"] | None:
        """Only the stack's header knows."""
        return None

    def optics(self, pixel_size: Float[Tensor, "n"]) -> Optics:
        """Transfer function one everywhere."""
        return check_optics(without_ctf(pixel_size), str(self.path))

    def poses(self, pixel_size: Float[Tensor, "n"]) -> Poses | None:
        """Unknown."""
        return None

    def half(self) -> Int[Tensor, "n"] | None:
        """Unknown."""
        return None

    def classes(self) -> Int[Tensor, "n"] | None:
        """Unknown."""
        return None

    def junk(self) -> Float[Tensor, "n"] | None:
        """Unknown."""
        return None

    def updated(self, particles: Particles) -> StackTable:
        """There are no columns to change."""
        return self

    def moved(self, names: ImageNames, box: int, binning: float) -> StackTable:
        """The same, elsewhere."""
        return StackTable(self.path, names)

    def write(self, path: Path) -> None:
        """Refuse: a stack has no table."""
        raise InputError(f"{path}: a bare stack has no table to write; choose a .star or .cs file")


def without_ctf(pixel_size: Float[Tensor, "n"]) -> Optics:
    """Optics whose transfer function is one at every frequency: in focus, no aberration, pure amplitude contrast."""
    uniform = Optics.uniform(len(pixel_size), pixel_size=1.0, spherical_aberration=0.0, amplitude_contrast=1.0)
    return uniform.replace(pixel_size=pixel_size)


def check_optics(optics: Optics, origin: str) -> Optics:
    """Refuse values that no microscope has, which mean a wrong unit or a wrong column; return ``optics``."""
    limits = [
        ("pixel size", optics.pixel_size, 0.05, 200.0, "Å"),
        ("voltage", optics.voltage, 20.0, 3000.0, "kV"),
        ("spherical aberration", optics.spherical_aberration, -20.0, 20.0, "mm"),
        ("amplitude contrast", optics.amplitude_contrast, 0.0, 1.0, "a fraction"),
        ("defocus U", optics.defocus_u, -1e6, 1e6, "Å"),
        ("defocus V", optics.defocus_v, -1e6, 1e6, "Å"),
        ("B factor", optics.b_factor, -1e5, 1e5, "Å²"),
    ]
    for what, values, low, high, unit in limits:
        outside = torch.nonzero(~((values >= low) & (values <= high)))
        if len(outside):
            row = int(outside[0])
            raise InputError(
                f"{origin}: row {row + 1}: {what} {float(values[row]):g} is impossible; expected {unit} "
                f"between {low:g} and {high:g}"
            )
    largest = float(torch.maximum(optics.defocus_u.abs(), optics.defocus_v.abs()).max())
    if 0 < largest < 100:
        raise InputError(
            f"{origin}: the largest defocus is {largest:g} Å; defocus is expected in Å and looks like µm: "
            "multiply it by 10000"
        )
    return optics
