"""Analytic phantoms: sums of isotropic Gaussians whose projections and transforms are known in closed form."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.types import Volume


@dataclass(frozen=True)
class GaussianPhantom:
    """Gaussians at ``centres`` (g, 3) Å with widths ``sigmas`` (g,) Å and masses ``masses`` (g,); float64.

    Volumes sample the density, images sample its line integral, both in units of mass per Å^3 or Å^2.
    """

    centres: Tensor
    sigmas: Tensor
    masses: Tensor

    @classmethod
    def random(cls, count: int, radius: float, generator: torch.Generator, sigma: float = 4.0) -> "GaussianPhantom":
        """An asymmetric cloud inside a sphere of ``radius`` Å."""
        directions = torch.nn.functional.normalize(
            torch.randn(count, 3, generator=generator, dtype=torch.float64), dim=-1
        )
        distance = radius * torch.rand(count, 1, generator=generator, dtype=torch.float64) ** (1 / 3)
        widths = sigma * (0.8 + 0.6 * torch.rand(count, generator=generator, dtype=torch.float64))
        masses = 0.5 + torch.rand(count, generator=generator, dtype=torch.float64)
        return cls(directions * distance, widths, masses)

    def volume(self, box: int, voxel_size: float) -> Volume:
        """The density sampled at voxel centres, (z, y, x)."""
        axis = (torch.arange(box, dtype=torch.float64) - box // 2) * voxel_size
        factors = [self._profile(axis, self.centres[:, i]) for i in range(3)]
        data = torch.einsum("g,gz,gy,gx->zyx", self.masses, factors[2], factors[1], factors[0])
        return Volume(data.float(), voxel_size)

    def project(self, rotations: Tensor, shifts: Tensor, box: int, pixel_size: float) -> Tensor:
        """Line integrals (n, y, x) of the object turned by ``rotations`` (n, 3, 3) and moved by ``shifts`` (n, 2) Å."""
        axis = (torch.arange(box, dtype=torch.float64) - box // 2) * pixel_size
        positions = (rotations.double() @ self.centres.T)[:, :2] + shifts.double()[:, :, None]
        images = [
            torch.einsum("g,gy,gx->yx", self.masses, self._profile(axis, y), self._profile(axis, x))
            for x, y in positions
        ]
        return torch.stack(images)

    def _profile(self, axis: Tensor, centre: Tensor) -> Tensor:
        distance = axis[None] - centre[:, None]
        return torch.exp(-0.5 * (distance / self.sigmas[:, None]) ** 2) / (
            math.sqrt(2 * math.pi) * self.sigmas[:, None]
        )
