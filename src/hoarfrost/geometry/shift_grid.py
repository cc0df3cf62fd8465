"""Grids of in-plane shifts for a search."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def shift_grid(extent: float, count: int) -> Float[Tensor, "t 2"]:
    """Shifts (x, y) of a ``count x count`` grid over ``[-extent, extent]``, less its four corners.

    The unit is the caller's. A grid of one shift is no shift at all.
    """
    if count == 1:
        return torch.zeros(1, 2)
    step = 2 * extent / (count - 1)
    axis = (torch.arange(count) - (count - 1) / 2) * step
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    corner = (x.abs() > extent - 0.5 * step) & (y.abs() > extent - 0.5 * step)
    return torch.stack([x[~corner], y[~corner]], dim=-1)


def shift_cells(extent: float, count: int) -> Float[Tensor, "t 2"]:
    """Centres (x, y) of the ``count x count`` equal cells of the square ``[-extent, extent]^2``.

    Grids nest: the square of one cell, ``extent / count``, is cut into cells again. The unit is the caller's.
    """
    axis = (2 * torch.arange(count) + 1 - count) * (extent / count)
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    return torch.stack([x, y], dim=-1).flatten(0, 1)
