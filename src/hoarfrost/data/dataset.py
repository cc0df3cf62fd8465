"""A whole stack as band vectors on disk, whitened, so that every later pass reads only the coefficients it needs."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from hoarfrost.data.forecast import STORED_BYTES, readable_size
from hoarfrost.errors import InputError
from hoarfrost.fourier.band import Band
from hoarfrost.kernels.images import normalise_images
from hoarfrost.kernels.library import compiled_for
from hoarfrost.kernels.threads import map_parts
from hoarfrost.physics.aberrations import antisymmetric_phase, sampled_frequency_matrices
from hoarfrost.physics.ctf import contrast_transfer_function
from hoarfrost.physics.noise import NoiseAccumulator
from hoarfrost.types import Optics, Particles

CPU = torch.device("cpu")

NOISE_SAMPLE = 2000
"""Images from which the noise spectrum of the stack is estimated."""

IMAGES_AT_ONCE = 32
"""Images normalised and transformed together: few enough to stay in a core's cache."""

LARGEST_STORED = 65504.0
"""The largest number of half precision."""

LEAST_NOISE = 1e-3
"""Share of the images' power that counts as noise at least: no model of an image is better than that."""


@dataclass(frozen=True)
class BandImages:
    """A batch of whitened images on one band: ``vectors = transfer * slice * shift phase + noise of unit power``."""

    band: Band
    vectors: Complex[Tensor, "b m"]
    transfer: Float[Tensor, "b m"]
    frequency_matrix: Float[Tensor, "b 2 2"] | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, rows: slice | Int[Tensor, "c"]) -> BandImages:
        matrix = None if self.frequency_matrix is None else self.frequency_matrix[rows]
        return BandImages(self.band, self.vectors[rows], self.transfer[rows], matrix)

    def centred(self, shifts: Float[Tensor, "b 2"]) -> BandImages:
        """The images moved by ``-shifts`` pixels, so that particles sit on the centre."""
        vectors = self.vectors * self.band.shift_phases(-shifts.to(self.transfer))
        return BandImages(self.band, vectors, self.transfer, self.frequency_matrix)

    def prefix(self, limit: int) -> BandImages:
        """The images in the smaller band to ``limit``; in their own where that ends before it."""
        band = self.band.prefix(min(limit, self.band.limit))
        return BandImages(band, self.vectors[:, : len(band)], self.transfer[:, : len(band)], self.frequency_matrix)

    def to(self, device: torch.device) -> BandImages:
        """The batch on another device."""
        matrix = None if self.frequency_matrix is None else self.frequency_matrix.to(device)
        return BandImages(self.band, self.vectors.to(device), self.transfer.to(device), matrix)


@dataclass(frozen=True)
class Normalisation:
    """How images become comparable: each is put on mean 0 and deviation 1 of its background, dark ones inverted."""

    background_radius: float  # pixels; the background lies outside this circle
    invert: bool = False

    def apply(self, images: Float[Tensor, "b y x"]) -> Float[Tensor, "b y x"]:
        """Normalised images; one that is constant stays at zero."""
        box = images.shape[-1]
        radius = min(self.background_radius, 0.5 * box)
        if compiled_for(images):
            images = images.clone(memory_format=torch.contiguous_format)
            normalise_images(images, radius, self.invert)
            return images
        axis = torch.arange(box, device=images.device) - box // 2
        outside = (axis[:, None] ** 2 + axis**2) > radius**2
        background = images[:, outside]
        mean, deviation = background.mean(-1), background.std(-1)
        # Where the background is empty, as in noiseless simulations, the whole image sets the scale.
        whole = images.flatten(1).std(-1)
        deviation = torch.where(deviation > 1e-4 * whole, deviation, whole)
        scale = torch.where(deviation > 0, 1 / deviation.clamp(min=1e-30), torch.zeros_like(deviation))
        normalised = (images - mean[:, None, None]) * scale[:, None, None]
        return -normalised if self.invert else normalised


@dataclass(frozen=True)
class BandStack:
    """The whitened band vectors of a stack in one flat file, and the optics to model them.

    They are kept in half precision: noise has unit power in every coefficient, a thousandth of which is lost. What
    would not fit into its range (65,504 deviations of the noise) is cut off.
    """

    path: Path
    band: Band
    optics: Optics
    pixel_size: float  # Å; of the map that the stack makes
    noise: Float[Tensor, "groups shells"]  # power per coefficient of the normalised images
    device: torch.device = CPU  # where batches go

    def __len__(self) -> int:
        return len(self.optics)

    def images(self, rows: Int[Tensor, "b"], band: Band) -> BandImages:
        """These particles on ``band``, which must not reach beyond the stored one."""
        vectors = torch.empty(len(rows), len(band), 2)
        vectors.copy_(torch.from_numpy(self._vectors[rows.numpy(), : len(self.band.prefix(band.limit))]))
        # Touched pages of the file would otherwise count as ours until the mapping is closed.
        self._mapping.madvise(mmap.MADV_DONTNEED)
        return BandImages(
            band,
            torch.view_as_complex(vectors),
            whitened_transfer(self.optics[rows], band, self.noise),
            None if self._matrices is None else self._matrices[rows].float(),
        ).to(self.device)

    def batches(
        self, size: int, band: Band, rows: Int[Tensor, "n"] | None = None
    ) -> Iterator[tuple[Tensor, BandImages]]:
        """Rows and images, ``size`` at a time."""
        for part in (torch.arange(len(self)) if rows is None else rows).split(size):
            yield part, self.images(part, band)

    def write(self, rows: slice, particles: Particles, normalisation: Normalisation) -> None:
        """Normalise, transform, whiten and store these particles of the stack."""
        index = torch.arange(len(self))[rows]

        def store(part: Tensor) -> None:
            vectors = torch.view_as_real(whitened_part(particles, part, self.band, normalisation, self.noise))
            values = vectors.clamp(-LARGEST_STORED, LARGEST_STORED).half().numpy()
            _write_at(file.fileno(), values.data.cast("B"), int(part[0]) * values[0].nbytes)

        try:
            with self.path.open("r+b") as file:
                map_parts(store, index.split(IMAGES_AT_ONCE), CPU)
        except OSError as error:
            raise InputError(f"{self.path}: cannot store the transformed images ({error.strerror})") from error

    def allocate(self) -> None:
        """Create the file in its full size; a disk without room shows here and not halfway."""
        size = len(self) * len(self.band) * STORED_BYTES
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("wb") as file:
                _reserve(file.fileno(), size)
        except OSError as error:
            self.path.unlink(missing_ok=True)
            raise InputError(
                f"{self.path}: {readable_size(float(size))} are needed for the transformed images ({error.strerror})"
            ) from error

    @cached_property
    def _mapping(self) -> mmap.mmap:
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    @cached_property
    def _vectors(self) -> np.ndarray:
        return np.frombuffer(self._mapping, dtype=np.float16).reshape(len(self), len(self.band), 2)

    @cached_property
    def _matrices(self) -> Tensor | None:
        return sampled_frequency_matrices(self.optics, self.pixel_size)


def _write_at(file: int, values: memoryview, offset: int) -> None:
    # One call may write less than it was given.
    while len(values) > 0:
        count = os.pwrite(file, values, offset)
        values, offset = values[count:], offset + count


def _reserve(file: int, size: int) -> None:
    """Give an open file its length, and its room on the disk where the system can promise that."""
    os.truncate(file, size)
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise


def whitened_images(
    particles: Particles,
    rows: Int[Tensor, "b"],
    band: Band,
    normalisation: Normalisation,
    noise: Float[Tensor, "groups shells"],
) -> BandImages:
    """Read these images, and normalise, transform and whiten them; antisymmetric aberrations are taken out."""
    vectors = whitened_vectors(particles, rows, band, normalisation, noise)
    optics = particles.optics[rows]
    matrices = sampled_frequency_matrices(optics, particles.pixel_size)
    transfer = whitened_transfer(optics, band, noise)
    return BandImages(band, vectors, transfer, None if matrices is None else matrices.float())


def whitened_vectors(
    particles: Particles,
    rows: Int[Tensor, "b"],
    band: Band,
    normalisation: Normalisation,
    noise: Float[Tensor, "groups shells"],
) -> Complex[Tensor, "b m"]:
    """What :func:`whitened_images` does, without the transfer functions."""

    def transform(part: Tensor) -> Tensor:
        return whitened_part(particles, part, band, normalisation, noise)

    return torch.cat(map_parts(transform, rows.split(IMAGES_AT_ONCE), CPU))


def whitened_part(
    particles: Particles,
    rows: Int[Tensor, "b"],
    band: Band,
    normalisation: Normalisation,
    noise: Float[Tensor, "groups shells"],
) -> Complex[Tensor, "b m"]:
    """The vectors of as many images as are best transformed together."""
    optics = particles.optics[rows]
    vectors = band.from_images(normalisation.apply(particles.images.read(rows)))
    phase = antisymmetric_phase(optics, band.frequency)
    if phase is not None:
        vectors = vectors * torch.polar(torch.ones_like(phase), -phase).to(vectors.dtype)
    return vectors * inverse_deviation(optics, band, noise)


def whitened_transfer(optics: Optics, band: Band, noise: Float[Tensor, "groups shells"]) -> Float[Tensor, "n m"]:
    """Transfer functions of whitened images, ``C / sigma`` (``C^2 / sigma`` where images come multiplied by C)."""
    ctf = contrast_transfer_function(optics, band.frequency)
    if optics.premultiplied.any():
        ctf = torch.where(optics.premultiplied[:, None], ctf.square(), ctf)
    return ctf * inverse_deviation(optics, band, noise)


def inverse_deviation(optics: Optics, band: Band, noise: Float[Tensor, "groups shells"]) -> Float[Tensor, "n m"]:
    """``1 / sigma`` of every coefficient, by the noise spectrum of each particle's optics group."""
    inverse = band.at_shells(noise.float().clamp(min=1e-12).rsqrt())
    return inverse.expand(len(optics), -1) if len(inverse) == 1 else inverse[optics.group]


def estimate_noise(
    particles: Particles, band: Band, normalisation: Normalisation, sample: int = NOISE_SAMPLE
) -> Float[Tensor, "groups shells"]:
    """Noise power on shells 0 ... limit of each optics group, from the background of evenly spaced images.

    A group with fewer than 50 images in the sample takes the spectrum of the whole stack.
    """
    groups = int(particles.optics.group.max()) + 1
    rows = torch.linspace(0, len(particles) - 1, min(sample, len(particles))).round().long().unique()

    def seen(part: Tensor) -> tuple[dict[int, NoiseAccumulator], Tensor]:
        images, group = normalisation.apply(particles.images.read(part)), particles.optics.group[part]
        found = {groups: NoiseAccumulator(band, normalisation.background_radius)}
        found[groups].add(images)
        for number in group.unique().tolist() if groups > 1 else ():
            found[number] = NoiseAccumulator(band, normalisation.background_radius)
            found[number].add(images[group == number])
        return found, band.shell_mean(band.from_images(images).abs().square().sum(0))

    accumulators = [NoiseAccumulator(band, normalisation.background_radius) for _ in range(groups + 1)]
    power = torch.zeros(band.limit + 1)
    for found, part_power in map_parts(seen, rows.split(256), CPU):
        power += part_power
        for number, accumulator in found.items():
            accumulators[number].join(accumulator)
    spectra = torch.stack(
        [a.spectrum() if a.count >= 50 else accumulators[-1].spectrum() for a in accumulators[:groups]]
    )
    return spectra.maximum(LEAST_NOISE * power / len(rows))
