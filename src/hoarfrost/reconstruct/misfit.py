"""How far a density is from the sums of a back-projection: the log-likelihood of the whitened images at known poses.

With ``b`` the data and ``W`` the weights of the nodes, and ``V`` what a density predicts there,

    L(V) = sum over nodes of W |V - b / W|^2

is, but for a constant, the sum over all images of ``|X - C V|^2``, as far as a node speaks for the points about it.
Its gradient by the voxels is the residual, back-projected: where it falls, density is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hoarfrost.fourier.node_transform import NodeTransform
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.kernels.threads import in_parts, map_parts
from hoarfrost.reconstruct.backprojection import FoldedSums

ROWS_AT_ONCE = 8
"""Rows of nodes whose residual is made and back-projected while it is in the caches."""

LEAST_WEIGHT = 1e-6
"""Share of the mean weight below which a node counts as not seen."""


@dataclass(frozen=True)
class Misfit:
    """Targets and weights of the nodes up to a limit, and the voxels that a density is drawn on."""

    transform: NodeTransform
    target: Complex[Tensor, "gz gy gx"]
    weight: Float[Tensor, "gz gy gx"]  # sums to one

    @classmethod
    def of(cls, sums: FoldedSums, limit: int, half_width: float, oversampling: float, blur: float = 0.0) -> Misfit:
        """The misfit of densities within ``half_width`` pixels of the origin, in shells up to ``limit``.

        Densities may have been blurred by a Gaussian of the variance ``blur`` (squared voxels of their grid), which
        keeps narrow ones from aliasing.
        """
        sums = prefix(sums, limit)
        shells = sums.shells
        seen = (sums.weight > LEAST_WEIGHT * sums.weight.mean()) & (shells <= limit) & (shells > 0)
        weight = torch.where(seen, sums.weight, 0)
        target = torch.where(seen, sums.data / sums.weight.clamp(min=1e-30), 0)
        # On this plane both a node and its conjugate are stored.
        weight[:, :, 0] *= 0.5
        transform = NodeTransform.covering(sums.grid, half_width, oversampling, blur=blur, device=weight.device)
        return cls(transform, target, weight / weight.sum())

    def __call__(self, volume: Float[Tensor, "z y x"]) -> Float[Tensor, ""]:
        """The misfit of a density on the grid of :attr:`transform`, relative to the data's own; differentiable."""
        loss = _Quadratic.apply(volume, self)
        assert isinstance(loss, Tensor)
        return loss

    @cached_property
    def scale(self) -> Float[Tensor, ""]:
        """The misfit of no density at all, in the units of the sums."""
        return _product(self.weight * self.target, self.target)

    def missing(self, volume: Float[Tensor, "z y x"]) -> Float[Tensor, "z y x"]:
        """Where density is missing (positive) or too much: the residual, back-projected."""
        return self.transform.adjoint(self.weight * (self.target - self.transform.forward(volume)))


class _Quadratic(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, volume: Tensor, misfit: Misfit) -> Tensor:
        transform, scale = misfit.transform, misfit.scale
        planes = transform.forward_within(volume)

        def residual(rows: slice) -> tuple[Tensor, Tensor]:
            difference = transform.forward_across(planes[:, rows]).sub_(misfit.target[:, rows])
            weighted = misfit.weight[:, rows] * difference
            return _product(weighted, difference), transform.adjoint_across(weighted)

        parts = map_parts(residual, in_parts(planes.shape[1], ROWS_AT_ONCE), planes.device)
        losses, back = zip(*parts, strict=True)
        ctx.save_for_backward(transform.adjoint_within(torch.cat(back, dim=1)) * (2 / scale))
        return torch.stack(losses).sum() / scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (by_volume,) = ctx.saved_tensors
        return gradients[0] * by_volume, None


def _product(first: Complex[Tensor, "gz gy gx"], second: Complex[Tensor, "gz gy gx"]) -> Float[Tensor, ""]:
    """The sum of the products of real parts and of imaginary parts."""
    return (torch.view_as_real(first) * torch.view_as_real(second)).sum()


def prefix(sums: FoldedSums, limit: int) -> FoldedSums:
    """The sums of a smaller band: the inner nodes."""
    grid = SliceGrid(sums.grid.box, min(limit, sums.grid.limit), sums.grid.padding)
    inner = slice(sums.grid.centre - grid.centre, sums.grid.centre + grid.centre + 1)
    nodes = inner, inner, slice(0, grid.centre + 1)
    return FoldedSums(grid, sums.data[nodes], sums.weight[nodes])
