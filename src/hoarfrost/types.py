"""The words of the field: particles, poses, optics, volumes, half-maps.

Every class is a frozen dataclass of tensors and metadata. Lengths are in ångström, angles in radians; degrees
appear only in files and on the command line. The conventions are written out in ``docs/conventions.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hoarfrost.errors import InputError


@runtime_checkable
class ImageSource(Protocol):
    """A stack of square images that is read a few rows at a time."""

    @property
    def box(self) -> int:
        """Side of an image in pixels."""
        ...

    def __len__(self) -> int: ...

    def read(self, rows: Int[Tensor, "b"]) -> Float[Tensor, "b y x"]:
        """Return the images of these rows as float32, in the order asked for."""
        ...


@dataclass(frozen=True)
class ImageArray:
    """Images that are already in memory, as an :class:`ImageSource`."""

    data: Float[Tensor, "n y x"]

    @property
    def box(self) -> int:
        """Side of an image in pixels."""
        return self.data.shape[-1]

    def __len__(self) -> int:
        return len(self.data)

    def read(self, rows: Int[Tensor, "b"]) -> Float[Tensor, "b y x"]:
        """The images of these rows."""
        return self.data[rows].float()


@dataclass(frozen=True)
class ImageSubset:
    """Some rows of another source, in an order of their own."""

    parent: ImageSource
    rows: Int[Tensor, "n"]

    @property
    def box(self) -> int:
        """Side of an image in pixels."""
        return self.parent.box

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, rows: Int[Tensor, "b"]) -> Float[Tensor, "b y x"]:
        """The images of these rows of the subset."""
        return self.parent.read(self.rows[rows])


@dataclass(frozen=True)
class Optics:
    """What the microscope did to each particle; one row a particle, float64.

    Zernike coefficients follow RELION 3.1 (``rlnOddZernike``, ``rlnEvenZernike``); a table without them has zero
    columns. ``magnification`` is RELION's anisotropic magnification matrix (identity where absent).
    """

    pixel_size: Float[Tensor, "n"]  # Å per pixel of the image as stored
    voltage: Float[Tensor, "n"]  # kV
    spherical_aberration: Float[Tensor, "n"]  # mm
    amplitude_contrast: Float[Tensor, "n"]
    defocus_u: Float[Tensor, "n"]  # Å, underfocus positive
    defocus_v: Float[Tensor, "n"]  # Å
    defocus_angle: Float[Tensor, "n"]  # radians, from the x axis to the direction of defocus_u
    phase_shift: Float[Tensor, "n"]  # radians
    b_factor: Float[Tensor, "n"]  # Å^2; envelope exp(-B s^2 / 4)
    scale: Float[Tensor, "n"]  # multiplies the CTF
    beam_tilt: Float[Tensor, "n 2"]  # mrad
    odd_zernike: Float[Tensor, "n odd"]
    even_zernike: Float[Tensor, "n even"]
    magnification: Float[Tensor, "n 2 2"]
    premultiplied: Bool[Tensor, "n"]  # images already multiplied by their CTF
    group: Int[Tensor, "n"]  # row of the optics group, from 0

    @classmethod
    def uniform(
        cls,
        count: int,
        *,
        pixel_size: float,
        voltage: float = 300.0,
        spherical_aberration: float = 2.7,
        amplitude_contrast: float = 0.1,
    ) -> Optics:
        """In-focus optics shared by ``count`` particles; the start from which a table or a simulation departs."""

        def column(value: float) -> Tensor:
            return torch.full((count,), value, dtype=torch.float64)

        return cls(
            pixel_size=column(pixel_size),
            voltage=column(voltage),
            spherical_aberration=column(spherical_aberration),
            amplitude_contrast=column(amplitude_contrast),
            defocus_u=column(0.0),
            defocus_v=column(0.0),
            defocus_angle=column(0.0),
            phase_shift=column(0.0),
            b_factor=column(0.0),
            scale=column(1.0),
            beam_tilt=torch.zeros(count, 2, dtype=torch.float64),
            odd_zernike=torch.zeros(count, 0, dtype=torch.float64),
            even_zernike=torch.zeros(count, 0, dtype=torch.float64),
            magnification=torch.eye(2, dtype=torch.float64).expand(count, 2, 2).clone(),
            premultiplied=torch.zeros(count, dtype=torch.bool),
            group=torch.zeros(count, dtype=torch.int64),
        )

    def __len__(self) -> int:
        return len(self.pixel_size)

    def __getitem__(self, rows: Int[Tensor, "b"] | slice) -> Optics:
        return Optics(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def replace(self, **changes: Tensor) -> Optics:
        """A copy with some columns exchanged."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Poses:
    """Where each particle's object sits: rotation, shift, and how far to trust them.

    ``rotations`` take object coordinates to image coordinates (the RELION matrix A); ``shifts`` say where the
    particle's centre sits relative to the image's, in Å, so that RELION's origin is ``-shifts``. ``confidence`` is
    the probability that the orientation is within 10 degrees of the truth, modulo the point group, in [0, 1]; what
    other programs write in its place is read as it is.
    """

    rotations: Float[Tensor, "n 3 3"]
    shifts: Float[Tensor, "n 2"]
    confidence: Float[Tensor, "n"] | None = None

    def __len__(self) -> int:
        return len(self.rotations)

    def __getitem__(self, rows: Int[Tensor, "b"] | slice) -> Poses:
        confidence = None if self.confidence is None else self.confidence[rows]
        return Poses(self.rotations[rows], self.shifts[rows], confidence)

    def replace(self, **changes: Tensor) -> Poses:
        """A copy with some columns exchanged."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Particles:
    """A particle stack: lazily read images, their optics, and poses where they are known.

    ``half`` is 1 or 2 (0 where a particle belongs to neither); ``classes`` counts from 1; ``junk`` is the probability
    that an image shows no particle. ``source`` is the table the particles were read from; only :mod:`hoarfrost.io`
    looks inside it, to write every column back.
    """

    images: ImageSource
    optics: Optics
    poses: Poses | None = None
    half: Int[Tensor, "n"] | None = None
    classes: Int[Tensor, "n"] | None = None
    junk: Float[Tensor, "n"] | None = None
    source: Any = None

    def __len__(self) -> int:
        return len(self.optics)

    @property
    def box(self) -> int:
        """Side of an image in pixels."""
        return self.images.box

    @property
    def pixel_size(self) -> float:
        """Pixel size of the map that these particles make: the median over particles, Å.

        Optics groups may differ by a few per cent; every particle keeps its own ``optics.pixel_size`` and slices are
        taken at its own physical frequencies.
        """
        return float(self.optics.pixel_size.median())

    def __getitem__(self, rows: Int[Tensor, "b"]) -> Particles:
        """The particles of these rows, in the order asked for; images stay unread."""

        def pick(column: Tensor | None) -> Tensor | None:
            return None if column is None else column[rows]

        return Particles(
            images=ImageSubset(self.images, rows),
            optics=self.optics[rows],
            poses=None if self.poses is None else self.poses[rows],
            half=pick(self.half),
            classes=pick(self.classes),
            junk=pick(self.junk),
            source=None if self.source is None else self.source[rows],
        )

    def replace(self, **changes: Any) -> Particles:
        """A copy with some fields exchanged."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Volume:
    """A density map: array (z, y, x) and voxel size in Å. The origin is voxel ``floor(D/2)`` on every axis."""

    data: Float[Tensor, "z y x"]
    voxel_size: float

    @property
    def box(self) -> int:
        """Side in voxels; refuses a map that is not a cube."""
        if len(set(self.data.shape)) != 1:
            raise InputError(f"a cubic map is needed, this one is {tuple(self.data.shape)} (z, y, x)")
        return self.data.shape[0]


@dataclass(frozen=True)
class HalfMaps:
    """Two maps, each from its own half of the data."""

    first: Volume
    second: Volume
