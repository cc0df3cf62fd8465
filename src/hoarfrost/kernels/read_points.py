"""Fields on a slice grid at many points: what ``SliceGrid.extract`` does, without intermediate arrays."""

from __future__ import annotations

import ctypes

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hoarfrost.kernels.library import compiled_for, library, pointer
from hoarfrost.kernels.threads import in_parts, map_parts

CHANNELS = (2, 4, 8)
"""Numbers a node for which the kernel is compiled."""

POINTS_AT_ONCE = 100_000


def can_read(table: Tensor, points: Tensor) -> bool:
    """Whether the kernel may read these: float32 in the computer's memory, no derivatives wanted, kernels there."""
    wanted = torch.is_grad_enabled() and (table.requires_grad or points.requires_grad)
    return compiled_for(table, points) and not wanted and table.shape[1] in CHANNELS


def read_points(
    table: Float[Tensor, "nodes c"], centre: int, points: Float[Tensor, "n m 3"]
) -> Complex[Tensor, "n m channels"]:
    """Complex fields, side by side at the nodes, at ``points`` in grid coordinates; zero outside the grid."""
    loaded = library()
    if loaded is None:
        raise RuntimeError("the compiled kernels are not there")
    table, flat = table.detach().contiguous(), points.detach().reshape(-1, 3).contiguous()
    channels = table.shape[1]
    result = torch.empty(len(flat), channels)

    def read(rows: slice) -> None:
        part = flat[rows]
        loaded.hoarfrost_read_points(
            pointer(table, torch.float32),
            ctypes.c_int64(channels),
            ctypes.c_int64(centre),
            pointer(part, torch.float32),
            ctypes.c_int64(len(part)),
            pointer(result[rows], torch.float32),
        )

    map_parts(read, in_parts(len(flat), POINTS_AT_ONCE), table.device)
    return torch.view_as_complex(result.unflatten(-1, (-1, 2))).unflatten(0, points.shape[:2])
