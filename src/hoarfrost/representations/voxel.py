"""A density sampled on a padded Fourier grid: the representation that projects fastest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid, as_table
from hoarfrost.fourier.transforms import resample_centred
from hoarfrost.representations.base import Density
from hoarfrost.types import Volume


@dataclass(frozen=True)
class FourierVolume:
    """A map and its transform out to ``grid.limit`` Fourier pixels, a :class:`~hoarfrost.representations.base.Density`."""

    volume: Float[Tensor, "z y x"]
    voxel_size: float
    grid: SliceGrid

    @classmethod
    def from_volume(cls, volume: Volume, limit: int, padding: int = 2) -> FourierVolume:
        """Prepare a map for projection out to ``limit`` Fourier pixels."""
        return cls(volume.data, volume.voxel_size, SliceGrid(volume.box, limit, padding))

    @cached_property
    def values(self) -> Float[Tensor, "nodes 2"]:
        """The transform at the grid's nodes."""
        return as_table(self.grid.forward(self.volume))

    @cached_property
    def values_and_moments(self) -> Float[Tensor, "nodes 8"]:
        """The transforms of the map and of ``2 pi x / D``, ``2 pi y / D``, ``2 pi z / D`` times the map.

        The latter are ``i`` times the derivatives by frequency, exact for the band-limited transform and smoother than
        differences of the interpolation; as real maps they keep the symmetry that the half-grid relies on.
        """
        box = self.grid.box
        position = (torch.arange(box, device=self.volume.device, dtype=self.volume.dtype) - box // 2) / box
        axes = (position, position[:, None], position[:, None, None])
        moments = [self.grid.forward(self.volume * (2 * math.pi * axis)) for axis in axes]
        return as_table(self.grid.forward(self.volume), *moments)

    def project(
        self,
        rotations: Float[Tensor, "n 3 3"],
        band: Band,
        frequency_matrix: Float[Tensor, "n 2 2"] | None = None,
    ) -> Complex[Tensor, "n m"]:
        """Central slices as band vectors; differentiable in the rotations and the map."""
        points = self.grid.points(rotations.to(self.volume), band, frequency_matrix)
        return self.grid.extract(self.values, points)[..., 0]

    def project_with_gradient(
        self,
        rotations: Float[Tensor, "n 3 3"],
        band: Band,
        frequency_matrix: Float[Tensor, "n 2 2"] | None = None,
    ) -> tuple[Complex[Tensor, "n m"], Complex[Tensor, "n m 3"]]:
        """Slices, and their derivatives by the object-frame frequency (per Fourier pixel)."""
        points = self.grid.points(rotations.to(self.volume), band, frequency_matrix)
        fields = self.grid.extract(self.values_and_moments, points)
        return fields[..., 0], fields[..., 1:] * -1j

    def to_volume(self, box: int) -> Volume:
        """The map, resampled to ``box`` voxels a side over the same extent."""
        data = self.volume if box == self.grid.box else resample_centred(self.volume, box, (0, 1, 2))
        return Volume(data, self.voxel_size * self.grid.box / box)


def as_voxels(density: Density, band: Band) -> FourierVolume:
    """The density on a grid that reaches as far as the band; voxels stay what they are."""
    if isinstance(density, FourierVolume):
        return density
    return FourierVolume.from_volume(density.to_volume(band.box), band.limit)
