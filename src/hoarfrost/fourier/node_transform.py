"""The transform of any real-space grid at the nodes of a slice grid, as matrix products.

A density that is drawn on a grid of voxels of its own size, as fine as the band asks for, has to be compared with the
sums of a back-projection at the nodes of theirs. The two grids have nothing in common but the origin, so that the
transform is one small matrix an axis; three products over whole planes do it, faster than a padded FFT of which most is
thrown away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hoarfrost.fourier.slices import SliceGrid


@dataclass(frozen=True)
class NodeTransform:
    """From ``side`` voxels of ``spacing`` pixels about the origin to the nodes of a slice grid, and back.

    What is transformed is the density times the gridding kernel, for that is what the nodes of a back-projection hold
    where many views meet. Values are those of the projections' orthonormal transforms of a map of the grid's box.
    """

    grid: SliceGrid
    side: int
    spacing: float
    blur: float = 0.0  # squared voxels; variance of a Gaussian that the density was blurred by, to be taken out
    device: torch.device | None = None

    @classmethod
    def covering(
        cls,
        grid: SliceGrid,
        half_width: float,
        oversampling: float,
        *,
        blur: float = 0.0,
        device: torch.device | None = None,
    ) -> NodeTransform:
        """A grid that reaches ``half_width`` pixels from the origin, finer than the band needs by ``oversampling``."""
        spacing = grid.box / (2 * grid.limit * oversampling)
        return cls(grid, 2 * math.ceil(half_width / spacing), spacing, blur, device)

    def forward(self, volume: Float[Tensor, "z y x"]) -> Complex[Tensor, "gz gy gx"]:
        """The nodes that a density predicts."""
        waves, side, count = self._waves, self.side, len(self._waves)
        half = waves[self.grid.centre :]
        volume = volume * self._kernel
        rows = torch.complex(volume @ half.real.T, volume @ half.imag.T)
        planes = (waves @ rows).reshape(side, -1)
        return (waves @ planes).reshape(count, count, -1) / self.grid.box

    def adjoint(self, nodes: Complex[Tensor, "gz gy gx"]) -> Float[Tensor, "z y x"]:
        """What a density's voxels get of values at the nodes: the adjoint of :meth:`forward` in real parts."""
        waves, side, count = self._waves, self.side, len(self._waves)
        half, back = waves[self.grid.centre :], waves.mH
        planes = (back @ nodes.reshape(count, -1)).reshape(side, count, -1)
        rows = back @ planes
        return (rows.real @ half.real + rows.imag @ half.imag) * (self._kernel / self.grid.box)

    @cached_property
    def _position(self) -> Float[Tensor, "side"]:
        """Of the voxels along an axis, in pixels, float64."""
        return (torch.arange(self.side, device=self.device).double() - self.side // 2) * self.spacing

    @cached_property
    def _waves(self) -> Complex[Tensor, "nodes side"]:
        """``exp(-2 pi i k x)`` of the nodes along an axis, without the blur."""
        centre = self.grid.centre
        k = torch.arange(-centre, centre + 1, device=self.device).double() / self.grid.padded_box
        angle = -2 * math.pi * k[:, None] * self._position
        sharpened = torch.exp(2 * math.pi**2 * self.blur * (k * self.spacing).square())
        return torch.polar(sharpened[:, None].expand(angle.shape), angle).to(torch.complex64)

    @cached_property
    def _kernel(self) -> Float[Tensor, "z y x"]:
        """What trilinear interpolation between the nodes does to a density, and the volume of a voxel."""
        profile = (self.spacing * torch.sinc(self._position / self.grid.padded_box) ** 2).float()
        return profile[:, None, None] * profile[:, None] * profile
