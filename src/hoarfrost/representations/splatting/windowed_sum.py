"""Windowed Gaussians added up on a grid: the sum that voxels and images of a mixture have in common.

Each Gaussian is ``a g(d^T P d)`` with the offset ``d`` from its centre, a precision matrix ``P`` and the profile ``g``
of :mod:`~hoarfrost.representations.splatting.window`. The derivatives by everything that a Gaussian has follow from ten
moments of the gradient under it: of ``g``, and of ``g' d`` and ``g' d d^T``.

Images are planes of a grid: Gaussians that do not reach beyond their own plane, whose number is their third coordinate.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.kernels.library import compiled_for
from hoarfrost.kernels.windowed_sum import add_gaussians, gaussian_moments
from hoarfrost.representations.splatting.window import windowed, windowed_slope

POINTS_AT_ONCE = 1_000_000
"""Grid points that PyTorch works on together."""

ROWS, COLUMNS = (0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)
"""Where the six numbers xx, yy, zz, xy, xz, yz of a symmetric matrix stand in it."""


def windowed_sum(
    centres: Float[Tensor, "n 3"],
    amplitudes: Float[Tensor, "n"],
    precisions: Float[Tensor, "n 6"] | Float[Tensor, "n"],
    reach: Float[Tensor, "n 3"],
    shape: tuple[int, int, int],
    window: float,
    own_planes: bool = False,
) -> Float[Tensor, "z y x"]:
    """The sum of windowed Gaussians at the points of a grid; differentiable in the first three arguments.

    Parameters
    ----------
    centres : (x, y, z) in grid steps, counted from the first point of each axis.
    amplitudes : values at the centres.
    precisions : inverse covariances xx, yy, zz, xy, xz, yz, or one inverse variance where all Gaussians are isotropic.
    reach : half the sides of the boxes that hold the windows.
    shape : of the grid, (z, y, x).
    window : its radius in standard deviations.
    own_planes : whether every Gaussian belongs to one plane; all planes have as many, one plane's after another's.
    """
    result = _WindowedSum.apply(centres, amplitudes, precisions, reach.detach(), shape, window**2, own_planes)
    assert isinstance(result, Tensor)
    return result


class _WindowedSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        centres: Tensor,
        amplitudes: Tensor,
        precisions: Tensor,
        reach: Tensor,
        shape: tuple[int, int, int],
        edge: float,
        own_planes: bool,
    ) -> Tensor:
        inputs = (centres.contiguous(), amplitudes.contiguous(), precisions.contiguous(), reach.contiguous())
        ctx.save_for_backward(*inputs)
        ctx.edge, ctx.own_planes = edge, own_planes
        if compiled_for(*inputs):
            return add_gaussians(shape, edge, *inputs, own_planes=own_planes)
        return _add(shape, edge, *inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        centres, amplitudes, precisions, reach = ctx.saved_tensors
        field = gradients[0].contiguous()
        if compiled_for(field, centres):
            moments = gaussian_moments(field, ctx.edge, centres, precisions, reach, ctx.own_planes)
        else:
            moments = _moments(field, ctx.edge, centres, precisions, reach)
        first, second = moments[:, 1:4], moments[:, 4:] * amplitudes[:, None]
        if precisions.ndim == 1:
            by_centre = precisions[:, None] * first
            by_precision = second[:, :3].sum(-1)
        else:
            by_centre = (symmetric(precisions) @ first[..., None])[..., 0]
            by_precision = second * second.new_tensor([1, 1, 1, 2, 2, 2])
        by_centre = by_centre * (-2 * amplitudes[:, None])
        return by_centre, moments[:, 0], by_precision, None, None, None, None


def symmetric(numbers: Float[Tensor, "*n 6"]) -> Float[Tensor, "*n 3 3"]:
    """The matrices whose elements are xx, yy, zz, xy, xz, yz."""
    return numbers[..., [0, 3, 4, 3, 1, 5, 4, 5, 2]].unflatten(-1, (3, 3))


def _add(
    shape: tuple[int, int, int], edge: float, centres: Tensor, amplitudes: Tensor, precisions: Tensor, reach: Tensor
) -> Tensor:
    result = centres.new_zeros(shape).flatten()
    for rows, place, inside, offset in _covered(shape, centres, reach):
        values = windowed(_square(offset, precisions[rows]), edge) * amplitudes[rows, None] * inside
        result.index_add_(0, place.flatten(), values.flatten())
    return result.unflatten(0, shape)


def _moments(field: Tensor, edge: float, centres: Tensor, precisions: Tensor, reach: Tensor) -> Tensor:
    result = centres.new_zeros(len(centres), 10)
    flat, shape = field.flatten(), (field.shape[0], field.shape[1], field.shape[2])
    for rows, place, inside, offset in _covered(shape, centres, reach):
        values = flat[place] * inside
        q = _square(offset, precisions[rows])
        slope = values * windowed_slope(q, edge)
        second = offset[..., ROWS] * offset[..., COLUMNS]
        result[rows, 0] = (values * windowed(q, edge)).sum(-1)
        result[rows, 1:4] = (slope[..., None] * offset).sum(1)
        result[rows, 4:] = (slope[..., None] * second).sum(1)
    return result


def _square(offset: Float[Tensor, "g p 3"], precisions: Tensor) -> Float[Tensor, "g p"]:
    """``d^T P d``."""
    if precisions.ndim == 1:
        return precisions[:, None] * offset.square().sum(-1)
    return ((offset @ symmetric(precisions)) * offset).sum(-1)


def _covered(
    shape: tuple[int, int, int], centres: Tensor, reach: Tensor
) -> Iterator[tuple[Int[Tensor, "g"], Int[Tensor, "g p"], Tensor, Float[Tensor, "g p 3"]]]:
    """Gaussians with windows of like size together: which, the grid points about them, whether there are such, offsets."""
    size = reach.ceil().long()
    in_plane, across = size[:, :2].amax(-1), size[:, 2]
    limits = torch.tensor(shape[::-1], device=centres.device)
    for half, depth in torch.stack([in_plane, across], dim=-1).unique(dim=0).tolist():
        members = ((in_plane == half) & (across == depth)).nonzero()[:, 0]
        axis, deep = (torch.arange(-one, one + 1, device=centres.device) for one in (half, depth))
        z, y, x = torch.meshgrid(deep, axis, axis, indexing="ij")
        steps = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
        for rows in members.split(max(1, POINTS_AT_ONCE // len(steps))):
            points = centres[rows, None].round().long() + steps
            inside = ((points >= 0) & (points < limits)).all(-1)
            x, y, z = torch.where(inside[..., None], points, 0).unbind(-1)
            yield rows, (z * shape[1] + y) * shape[2] + x, inside, points - centres[rows, None]
