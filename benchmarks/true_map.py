"""A simulated stack seen with all that a blind run lacks: its true poses, and the true map on the scale of the images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from hoarfrost.data.dataset import BandImages, Normalisation, estimate_noise, whitened_images
from hoarfrost.fourier.band import Band
from hoarfrost.io.mrc import read_map
from hoarfrost.io.particles import read_particles
from hoarfrost.poses.contrast import contrast
from hoarfrost.representations.voxel import FourierVolume
from hoarfrost.types import Particles, Poses, Volume

SAMPLE = 1024
"""Images by which the scale of the map is found."""


@dataclass(frozen=True)
class TrueMap:
    """The images of a stack, whitened as a run does it, and the density that they are of."""

    stack: Path

    @cached_property
    def particles(self) -> Particles:
        """Images, optics and true poses."""
        return read_particles(self.stack / "truth.star")

    @property
    def poses(self) -> Poses:
        """The true poses."""
        if self.particles.poses is None:
            raise RuntimeError("the truth has no poses")
        return self.particles.poses

    @property
    def shifts(self) -> Tensor:
        """The true shifts in pixels."""
        return self.poses.shifts / self.particles.optics.pixel_size[:, None]

    def images(self, rows: Tensor, limit: int) -> BandImages:
        """These particles up to shell ``limit``."""
        return whitened_images(self.particles, rows, Band(self.particles.box, limit), self._normalisation, self._noise)

    def density(self, limit: int) -> FourierVolume:
        """The true map as strong as the images show it."""
        volume, rows = read_map(self.stack / "truth.mrc"), torch.arange(min(SAMPLE, len(self.particles)))
        images, density = self.images(rows, limit), FourierVolume.from_volume(volume, limit)
        weight = torch.ones(len(images.band))
        scale = contrast(images, density, self.poses.rotations[rows], self.shifts[rows], weight).scale.mean()
        return FourierVolume.from_volume(Volume(float(scale) * volume.data, volume.voxel_size), limit)

    @property
    def _normalisation(self) -> Normalisation:
        return Normalisation(0.42 * self.particles.box)

    @cached_property
    def _noise(self) -> Tensor:
        return estimate_noise(self.particles, Band.to_nyquist(self.particles.box), self._normalisation)
