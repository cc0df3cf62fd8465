"""The transform of any real-space grid at the nodes of a slice grid, as matrix products.

A density that is drawn on a grid of voxels of its own size, as fine as the band asks for, has to be compared with the
sums of a back-projection at the nodes of theirs. The two grids have nothing in common but the origin, so that the
transform is one small matrix an axis; three products over whole planes do it, faster than a padded FFT of which most is
thrown away. Both grids are alike on both sides of the origin: sums and differences of opposite points take real matrices
of half the side and half the length, a quarter of the work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.nn.functional import pad

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
        return self.forward_across(self.forward_within(volume))

    def adjoint(self, nodes: Complex[Tensor, "gz gy gx"]) -> Float[Tensor, "z y x"]:
        """What a density's voxels get of values at the nodes: the adjoint of :meth:`forward` in real parts."""
        return self.adjoint_within(self.adjoint_across(nodes))

    def forward_within(self, volume: Float[Tensor, "z y x"]) -> Complex[Tensor, "p gy gx"]:
        """The transform of each plane of voxels."""
        cosine, sine = self._to_nodes
        # The point opposite to the first of an even side is missing.
        volume = pad(volume * self._kernel, (0, 1 - self.side % 2) * 3)
        same, other = _opposite(volume, -1)
        rows = torch.complex(same @ cosine.T, -(other @ sine.T))
        return _along(rows, cosine, sine, -1)

    def forward_across(self, planes: Complex[Tensor, "p ky gx"]) -> Complex[Tensor, "gz ky gx"]:
        """From transforms of planes, or of some of their rows, to the nodes there."""
        return _along(planes.flatten(1), *self._to_nodes, -1).unflatten(1, planes.shape[1:])

    def adjoint_across(self, nodes: Complex[Tensor, "gz ky gx"]) -> Complex[Tensor, "p ky gx"]:
        """The adjoint of :meth:`forward_across`."""
        return _along(nodes.flatten(1), *self._to_points, 1).unflatten(1, nodes.shape[1:])

    def adjoint_within(self, planes: Complex[Tensor, "p gy gx"]) -> Float[Tensor, "z y x"]:
        """The adjoint of :meth:`forward_within` in real parts."""
        rows = _along(planes, *self._to_points, 1)
        # Of the last axis there is one half only, and nothing counts twice.
        cosine, sine = self._waves
        same, other = rows.real @ cosine, rows.imag @ sine
        volume = torch.cat([(same + other)[..., 1:].flip(-1), same - other], dim=-1)
        return volume[: self.side, : self.side, : self.side] * self._kernel

    @cached_property
    def _waves(self) -> tuple[Float[Tensor, "nodes points"], Float[Tensor, "nodes points"]]:
        """``cos`` and ``sin`` of ``2 pi k x`` for the nodes and points of half an axis, without the blur."""
        k = torch.arange(self.grid.centre + 1, device=self.device).double() / self.grid.padded_box
        x = torch.arange(self.side // 2 + 1, device=self.device).double() * self.spacing
        angle = 2 * math.pi * k[:, None] * x
        sharpened = torch.exp(2 * math.pi**2 * self.blur * (k * self.spacing).square())[:, None]
        return (sharpened * angle.cos()).float(), (sharpened * angle.sin()).float()

    @cached_property
    def _to_nodes(self) -> tuple[Float[Tensor, "nodes points"], Float[Tensor, "nodes points"]]:
        """For sums and differences of opposite points, among which the origin is its own opposite."""
        cosine, sine = self._waves
        return _first_halved(cosine), sine

    @cached_property
    def _to_points(self) -> tuple[Float[Tensor, "points nodes"], Float[Tensor, "points nodes"]]:
        """For sums and differences of opposite nodes."""
        cosine, sine = (one.T.contiguous() for one in self._waves)
        return _first_halved(cosine), sine

    @cached_property
    def _kernel(self) -> Float[Tensor, "z y x"]:
        """What trilinear interpolation between the nodes does to a density, and the volume of a voxel over the box."""
        position = (torch.arange(self.side, device=self.device).double() - self.side // 2) * self.spacing
        profile = (self.spacing * torch.sinc(position / self.grid.padded_box) ** 2).float()
        return profile[:, None, None] * profile[:, None] * (profile / self.grid.box)


def _along(
    values: Complex[Tensor, "*b i c"], cosine: Float[Tensor, "o p"], sine: Float[Tensor, "o p"], sign: int
) -> Complex[Tensor, "*b j c"]:
    """Sums of values times ``cos + sign i sin`` over an axis with an origin in its middle, for another such axis."""
    same, other = (
        torch.view_as_complex((wave @ torch.view_as_real(part).flatten(-2)).unflatten(-1, (-1, 2)))
        for wave, part in zip((cosine, sine), _opposite(values, -2), strict=True)
    )
    origin = len(cosine) - 1
    result = values.new_empty(*values.shape[:-2], 2 * origin + 1, values.shape[-1])
    torch.add(same, other, alpha=sign * 1j, out=result[..., origin:, :])
    torch.sub(same[..., 1:, :].flip(-2), other[..., 1:, :].flip(-2), alpha=sign * 1j, out=result[..., :origin, :])
    return result


def _opposite(values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Sums and differences of values at opposite places of an axis, from its middle outwards."""
    middle = values.shape[dim] // 2
    after, before = values.narrow(dim, middle, middle + 1), values.narrow(dim, 0, middle + 1).flip(dim)
    return after + before, after - before


def _first_halved(wave: Float[Tensor, "o p"]) -> Float[Tensor, "o p"]:
    return torch.cat([0.5 * wave[:, :1], wave[:, 1:]], dim=1)
