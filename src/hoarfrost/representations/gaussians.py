"""A density that is a mixture of Gaussians: few numbers for a map, none of them on a grid.

The density is ``sum of A_i N(r; mu_i, S_i)`` with normalised Gaussians, so that a mass ``A`` is what the Gaussian adds up
to over the voxels of a map, whatever its width. All Gaussians are isotropic, or all have axes of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import quaternion_to_matrix
from hoarfrost.representations.splatting.separable import fourier_projections
from hoarfrost.representations.splatting.voxelise import voxelise
from hoarfrost.representations.splatting.window import WINDOW
from hoarfrost.representations.splatting.windowed import LEAST_VARIANCE, splatted_projections
from hoarfrost.representations.splatting.windowed_sum import COLUMNS, ROWS
from hoarfrost.types import Volume

FINE_WINDOW = 5.5
"""Window, in standard deviations, of maps and slices that are to be right to float32."""


@dataclass(frozen=True)
class GaussianDensity:
    """Gaussians and the grid that their masses refer to, a :class:`~hoarfrost.representations.base.Density`."""

    centres: Float[Tensor, "n 3"]  # (x, y, z) in Å about the origin
    masses: Float[Tensor, "n"]  # sums over voxels of ``voxel_size``
    scales: Float[Tensor, "n axes"]  # standard deviations in Å: one, or one for each of three axes
    quaternions: Float[Tensor, "n 4"] | None  # unit (x, y, z, w), turning the axes into the object's; None if isotropic
    box: int
    voxel_size: float

    def __post_init__(self) -> None:
        axes = 1 if self.quaternions is None else 3
        if self.scales.shape[1] != axes:
            raise ValueError(f"Gaussians with {axes} axes have as many scales, not {self.scales.shape[1]}")

    def __len__(self) -> int:
        return len(self.masses)

    @property
    def isotropic(self) -> bool:
        """Whether all Gaussians are balls."""
        return self.quaternions is None

    @property
    def variances(self) -> Float[Tensor, "n"]:
        """Mean variance over the axes, Å²: that of an isotropic Gaussian."""
        return self.scales.square().mean(-1)

    @property
    def covariances(self) -> Float[Tensor, "n 6"]:
        """Covariance matrices xx, yy, zz, xy, xz, yz in Å²."""
        if self.quaternions is None:
            return torch.cat([self.scales.square().expand(-1, 3), self.scales.new_zeros(len(self), 3)], dim=1)
        axes = quaternion_to_matrix(self.quaternions)
        return ((axes * self.scales.square()[:, None]) @ axes.mT)[:, ROWS, COLUMNS]

    def select(self, which: Int[Tensor, "k"] | Bool[Tensor, "n"]) -> GaussianDensity:
        """Only these Gaussians, in the order asked for."""
        turned = None if self.quaternions is None else self.quaternions[which]
        return replace(
            self,
            centres=self.centres[which],
            masses=self.masses[which],
            scales=self.scales[which],
            quaternions=turned,
        )

    def widened(self, variance: float) -> GaussianDensity:
        """All Gaussians blurred by an isotropic one of this variance in Å²."""
        return replace(self, scales=(self.scales.square() + variance).sqrt()) if variance else self

    def on_grid(self, box: int, voxel_size: float, window: float = WINDOW) -> Float[Tensor, "z y x"]:
        """The density at the voxels of any grid about the origin, in units of the map; differentiable.

        Nothing keeps frequencies beyond the grid's Nyquist from folding back into it: see :func:`voxelise`.
        """
        spread = self.variances if self.isotropic else self.covariances
        masses = self.masses * (self.voxel_size / voxel_size) ** 3
        return voxelise(self.centres / voxel_size, masses, spread / voxel_size**2, box, window)

    def in_image(
        self, rotations: Float[Tensor, "b 3 3"], frequency_matrix: Float[Tensor, "b 2 2"] | None = None
    ) -> tuple[Float[Tensor, "b 2 n"], Float[Tensor, "b 3 n"]]:
        """Centres (x, y) and covariances xx, yy, xy of the projections, in pixels."""
        frames = rotations[:, :2].to(self.centres)
        if frequency_matrix is not None:
            frames = frequency_matrix.to(frames).mT @ frames
        frames = frames / self.voxel_size
        (ax, ay, az), (bx, by, bz) = (row.unbind(-1) for row in frames.unbind(1))

        def weights(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> Tensor:
            """Of xx, yy, zz, xy, xz, yz in the product of a matrix with two vectors."""
            (px, py, pz), (qx, qy, qz) = first, second
            mixed = (px * qy + py * qx, px * qz + pz * qx, py * qz + pz * qy)
            return torch.stack([px * qx, py * qy, pz * qz, *mixed], dim=-1)

        a, b = (ax, ay, az), (bx, by, bz)
        products = torch.stack([weights(a, a), weights(b, b), weights(a, b)], dim=1)
        return frames @ self.centres.T, products @ self.covariances.T

    def project(
        self,
        rotations: Float[Tensor, "n 3 3"],
        band: Band,
        frequency_matrix: Float[Tensor, "n 2 2"] | None = None,
    ) -> Complex[Tensor, "n m"]:
        """Central slices as band vectors; differentiable in everything and in the rotations.

        Isotropic Gaussians are exact; those with axes, or under a frequency matrix, are splatted.
        """
        own = Band(self.box, band.limit)
        if self.isotropic and frequency_matrix is None:
            positions = (rotations[:, :2].to(self.centres) / self.voxel_size) @ self.centres.T
            return fourier_projections(positions, self.masses, self.variances / self.voxel_size**2, own)
        positions, covariances = self.in_image(rotations, frequency_matrix)
        return splatted_projections(positions, self.masses, covariances, own)

    def to_volume(self, box: int) -> Volume:
        """The map of ``box`` voxels a side over the same extent, without what lies beyond its Nyquist frequency.

        It is drawn on a grid twice as fine with all Gaussians widened as far as that grid needs, which is taken out
        again when the transform is cropped.
        """
        voxel_size = self.box * self.voxel_size / box
        fine = 0.5 * voxel_size
        blur = max(0.0, LEAST_VARIANCE - float(self.scales.detach().min()) ** 2 / fine**2) if len(self) else 0.0
        # Every other fine voxel from the first on is one of the map.
        shift = fine * (2 * (box // 2) - box)
        moved = replace(self, centres=self.centres + shift).widened(blur * fine**2)
        data = _every_other(moved.on_grid(2 * box, fine, FINE_WINDOW), blur)
        return Volume(data, voxel_size)


def merged(first: GaussianDensity, second: GaussianDensity) -> GaussianDensity:
    """The Gaussians of both, which are of one kind and refer to one grid."""
    if (first.box, first.voxel_size, first.isotropic) != (second.box, second.voxel_size, second.isotropic):
        raise ValueError("only Gaussians of one kind that refer to one grid can be put together")
    turned = None
    if first.quaternions is not None and second.quaternions is not None:
        turned = torch.cat([first.quaternions, second.quaternions])
    return replace(
        first,
        centres=torch.cat([first.centres, second.centres]),
        masses=torch.cat([first.masses, second.masses]),
        scales=torch.cat([first.scales, second.scales]),
        quaternions=turned,
    )


def _every_other(fine: Float[Tensor, "fz fy fx"], blur: float) -> Float[Tensor, "z y x"]:
    """A map of half the side with the frequencies that it can hold, less a blur of a variance in squared fine voxels."""
    length = len(fine) // 2
    half = length // 2
    rows = torch.cat([torch.arange(length - half), torch.arange(2 * length - half, 2 * length)]).to(fine.device)
    spectrum = torch.fft.rfft(fine, dim=2)[:, :, : half + 1]
    spectrum = torch.fft.fft(torch.fft.fft(spectrum, dim=1)[:, rows], dim=0)[rows]
    frequency = torch.fft.fftfreq(length, 2.0, dtype=fine.dtype, device=fine.device)
    sharpened = torch.exp(2 * math.pi**2 * blur * frequency.square()) / 2
    spectrum = spectrum * (sharpened[:, None, None] * sharpened[:, None] * sharpened[: half + 1])
    return torch.fft.irfftn(spectrum, s=(length, length, length))
