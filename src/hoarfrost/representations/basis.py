"""A space of densities spanned by a few maps: ``V = mean + sum over j of z_j basis_j``.

Central slices are linear in the density. Those of all the maps are therefore taken together, at the cost of little more
than one, and mixed by each particle's coefficients ``z``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid, as_table
from hoarfrost.representations.voxel import FourierVolume
from hoarfrost.types import Volume


@dataclass(frozen=True)
class VolumeBasis:
    """The mean (first) and the basis maps, on one slice grid."""

    volumes: Float[Tensor, "j z y x"]
    voxel_size: float
    grid: SliceGrid

    @cached_property
    def values(self) -> Float[Tensor, "nodes c"]:
        """The transforms of all maps at the grid's nodes, side by side."""
        return as_table(*(self.grid.forward(volume) for volume in self.volumes))

    def slices(
        self,
        rotations: Float[Tensor, "n 3 3"],
        band: Band,
        frequency_matrix: Float[Tensor, "n 2 2"] | None = None,
    ) -> Complex[Tensor, "n m j"]:
        """Central slices of the mean and of every basis map."""
        points = self.grid.points(rotations.to(self.volumes), band, frequency_matrix)
        return self.grid.extract(self.values, points)

    def at(self, coefficients: Float[Tensor, "k"]) -> FourierVolume:
        """The density of one set of coefficients, k = j - 1."""
        return FourierVolume(
            torch.einsum("j,jzyx->zyx", with_mean(coefficients), self.volumes), self.voxel_size, self.grid
        )


@dataclass(frozen=True)
class ParticleVolumes:
    """A density of its own for every image, a :class:`~hoarfrost.representations.base.ParticleDensity`."""

    basis: VolumeBasis
    coefficients: Float[Tensor, "n k"]

    def project(
        self,
        rotations: Float[Tensor, "n 3 3"],
        band: Band,
        frequency_matrix: Float[Tensor, "n 2 2"] | None = None,
    ) -> Complex[Tensor, "n m"]:
        """Slice ``i`` is that of particle ``i``; differentiable in rotations, coefficients and maps."""
        slices = self.basis.slices(rotations, band, frequency_matrix)
        return (slices @ with_mean(self.coefficients).to(slices)[..., None])[..., 0]

    def of_images(self, rows: Int[Tensor, "p"]) -> ParticleVolumes:
        """The densities of these particles, which may repeat."""
        return ParticleVolumes(self.basis, self.coefficients[rows.to(self.coefficients.device)])

    def to_volume(self, box: int) -> Volume:
        """The map at the particles' mean coefficients."""
        return self.basis.at(self.coefficients.mean(0)).to_volume(box)


def with_mean(coefficients: Float[Tensor, "*n k"]) -> Float[Tensor, "*n j"]:
    """Coefficients with the 1 of the mean in front."""
    return torch.cat([torch.ones_like(coefficients[..., :1]), coefficients], dim=-1)
