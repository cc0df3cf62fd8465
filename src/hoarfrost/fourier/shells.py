"""Shells of a three-dimensional transform: which voxel belongs to which, and averages over them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def radius_3d(
    shape: tuple[int, int, int], centre: tuple[int, int, int], *, device: torch.device | None = None
) -> Float[Tensor, "z y x"]:
    """Distance of every voxel of ``shape`` (z, y, x) from the voxel ``centre``, float32."""
    squares = [
        (torch.arange(length, device=device, dtype=torch.float32) - origin).square()
        for length, origin in zip(shape, centre, strict=True)
    ]
    return (squares[0][:, None, None] + squares[1][None, :, None] + squares[2][None, None, :]).sqrt()


def shell_average(values: Float[Tensor, "*n"], shells: Int[Tensor, "*n"], count: int) -> Float[Tensor, "{count}"]:
    """Mean of ``values`` over each shell 0 ... count-1; voxels of further shells are left out, empty shells give 0."""
    flat, index = values.flatten(), shells.flatten().clamp(max=count)
    total = torch.zeros(count + 1, dtype=values.dtype, device=values.device).scatter_add_(0, index, flat)
    size = torch.bincount(index, minlength=count + 1)
    return total[:count] / size[:count].clamp(min=1)
