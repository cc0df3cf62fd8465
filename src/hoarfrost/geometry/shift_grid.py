"""Grids of in-plane shifts for a search."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def shift_grid(extent: float, count: int) -> Float[Tensor, "t 2"]:
    """Shifts (x, y) of a ``count x count`` grid over ``[-extent, extent]``, within the circle that just misses its corners.

    The unit is the caller's. The circle reaches half a step past the extent, so that the axes keep their end points;
    a grid of one shift is no shift at all.
    """
    if count == 1:
        return torch.zeros(1, 2)
    step = 2 * extent / (count - 1)
    axis = (torch.arange(count) - (count - 1) / 2) * step
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    inside = x**2 + y**2 <= (extent + 0.5 * step) ** 2
    return torch.stack([x[inside], y[inside]], dim=-1)


def subdivide(shifts: Float[Tensor, "*n 2"], step: float) -> Float[Tensor, "*n 4 2"]:
    """The four shifts of half the step in each shift's cell."""
    quarter = step / 4
    offsets = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]], dtype=shifts.dtype)
    return shifts[..., None, :] + quarter * offsets.to(shifts.device)
