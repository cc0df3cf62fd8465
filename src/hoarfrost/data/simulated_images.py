"""Simulated images, computed when they are asked for: ``X = C · slice · exp(-2πi k·t) + noise``.

Every image has random numbers of its own, seeded by its row, so that an image is the same whenever, wherever and in
whichever company it is computed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.data.projector import SeriesProjector
from hoarfrost.fourier.band import Band
from hoarfrost.physics.aberrations import antisymmetric_phase, sampled_frequency_matrices
from hoarfrost.physics.ctf import contrast_transfer_function
from hoarfrost.physics.noise import sample_noise
from hoarfrost.types import Optics, Poses, Volume

PARTICLE, EMPTY, BLOBS = 0, 1, 2
"""What an image shows: a particle, nothing but noise, or a heap of blobs."""

# Small enough to stay in a core's cache, large enough to keep the overhead of each operation down.
_PIECE_COEFFICIENTS = 50_000
_TABLE_BYTES = 2e9


@dataclass(frozen=True)
class SimulatedImages:
    """An :class:`~hoarfrost.types.ImageSource` that computes what it is asked for, on all of torch's threads."""

    volumes: tuple[Volume, ...]
    optics: Optics
    poses: Poses
    classes: Int[Tensor, "n"]  # place in volumes, from 1; 0 for junk
    content: Int[Tensor, "n"]  # PARTICLE, EMPTY or BLOBS
    seed: int
    amplitude: float = 1.0  # multiplies the signal; negative for dark particles
    noise: Float[Tensor, "shells"] | None = None  # power on shells; None leaves noise out
    blob_variance: float = 0.0  # of the signal in images of blobs
    _projectors: OrderedDict[int, SeriesProjector] = field(default_factory=OrderedDict, repr=False, compare=False)

    @property
    def box(self) -> int:
        """Side of an image in pixels."""
        return self.volumes[0].box

    @cached_property
    def band(self) -> Band:
        """All coefficients below Nyquist: what an image consists of."""
        return Band.to_nyquist(self.box)

    def __len__(self) -> int:
        return len(self.classes)

    def replace(self, **changes: object) -> SimulatedImages:
        """A copy with some settings exchanged; it shares the tables of the projectors."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def read(self, rows: Int[Tensor, "b"]) -> Float[Tensor, "b y x"]:
        """The images of these rows, float32."""
        images = torch.empty(len(rows), self.box, self.box)
        piece = max(1, _PIECE_COEFFICIENTS // len(self.band))
        with _workers() as pool:
            for number in self.classes[rows].unique().tolist():
                projector = self._projector(number) if number > 0 else None
                places = torch.nonzero(self.classes[rows] == number)[:, 0]
                # Running through the results brings up what went wrong in a thread.
                for _ in pool.map(partial(self._fill, images, rows, projector), places.split(piece)):
                    pass
        return images

    def _fill(
        self,
        images: Float[Tensor, "b y x"],
        rows: Int[Tensor, "b"],
        projector: SeriesProjector | None,
        places: Int[Tensor, "p"],
    ) -> None:
        images[places] = self._images(rows[places], projector)

    def _images(self, rows: Int[Tensor, "b"], projector: SeriesProjector | None) -> Float[Tensor, "b y x"]:
        images = torch.zeros(len(rows), self.box, self.box)
        if projector is not None:
            images = self.amplitude * self._projections(rows, projector)
        for image, row, content in zip(images, rows.tolist(), self.content[rows].tolist(), strict=True):
            generator = torch.Generator().manual_seed(_image_seed(self.seed, row))
            if self.noise is not None:
                image += _noise_image(self.box, self.noise, generator)
            if content == BLOBS:
                image += self._blobs(row, generator)
        return images

    def _projections(self, rows: Int[Tensor, "b"], projector: SeriesProjector) -> Float[Tensor, "b y x"]:
        optics, poses = self.optics[rows], self.poses[rows]
        matrices = sampled_frequency_matrices(optics, projector.volume.voxel_size)
        slices = projector.project(poses.rotations, self.band, matrices)
        pixels = (poses.shifts / optics.pixel_size[:, None]).float()
        images = self._recorded(slices * self.band.shift_phases(pixels), optics)
        # A band has no coefficient at zero; it adds a constant, the projection's mean times the CTF there.
        at_zero = contrast_transfer_function(optics, torch.zeros(1, 2, dtype=torch.float64))
        return images + at_zero[:, :, None] * (projector.total / self.box**2)

    def _recorded(self, spectra: Tensor, optics: Optics) -> Float[Tensor, "b y x"]:
        """Images of band vectors as the microscope passes them on."""
        phase = antisymmetric_phase(optics, self.band.frequency)
        if phase is not None:
            spectra = spectra * torch.polar(torch.ones_like(phase), phase)
        return self.band.to_images(spectra * contrast_transfer_function(optics, self.band.frequency))

    def _blobs(self, row: int, generator: torch.Generator) -> Float[Tensor, "y x"]:
        """A heap of round spots of 4 to 20 % of the box, somewhere near the centre, as the microscope shows it."""
        count = int(torch.randint(3, 9, (1,), generator=generator))
        draw = torch.rand(4, count, generator=generator)
        centre, sigma = (draw[:2] - 0.5) * (0.5 * self.box), (0.02 + 0.08 * draw[2]) * self.box
        axis = torch.arange(self.box) - self.box // 2
        y, x = (torch.exp(-0.5 * ((axis - c[:, None]) / sigma[:, None]).square()) for c in centre)
        heap = torch.einsum("g,gy,gx->yx", 0.5 + draw[3], y, x)
        image = self._recorded(self.band.from_images(heap[None]), self.optics[torch.tensor([row])])[0]
        sign = 1.0 if self.amplitude > 0 else -1.0
        return image * (sign * self.blob_variance**0.5 / image.std())

    def _projector(self, number: int) -> SeriesProjector:
        """The projector of a class; those used longest ago give way when their tables grow beyond two gigabytes."""
        if number not in self._projectors:
            most = max(1, int(_TABLE_BYTES / SeriesProjector.table_bytes(self.box)))
            while len(self._projectors) >= most:
                self._projectors.popitem(last=False)
            self._projectors[number] = SeriesProjector(self.volumes[number - 1]).prepared()
        self._projectors.move_to_end(number)
        return self._projectors[number]


def _noise_image(box: int, spectrum: Float[Tensor, "shells"], generator: torch.Generator) -> Float[Tensor, "y x"]:
    if bool((spectrum == spectrum[0]).all()):
        return torch.randn(box, box, generator=generator) * spectrum[0].sqrt()
    return sample_noise(1, box, spectrum, generator)[0]


def _image_seed(seed: int, row: int) -> int:
    """A seed for each row, different for all rows (an odd factor modulo 2^32) and far from its neighbours'."""
    return (seed + 2654435761 * (row + 1)) % 2**32


@contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    """As many threads as torch would use, each running its operations alone.

    Images are independent and their arrays small: threads that each compute whole images waste less than threads
    that meet at the end of every operation.
    """
    count = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(count)
