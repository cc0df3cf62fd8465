"""Inserting central slices into the sums of a grid (see :meth:`hoarfrost.fourier.slices.SliceGrid.insert_slices`)."""

from __future__ import annotations

import ctypes

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from hoarfrost.kernels.library import library, pointer
from hoarfrost.kernels.threads import in_parts, map_parts

IMAGES_A_PART = 32
"""Images that one thread arranges at a time."""

POINTS_AT_ONCE = 8_000_000
"""Points arranged before they are inserted: the more, the less often the grid goes through the caches."""


class _InsertedSlices(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("images", "images_a_part", "coefficients", "limit", "centre")),
        *((name, ctypes.c_void_p) for name in ("order", "frames", "values", "weights", "shifts", "points", "pieces")),
        ("pieces_a_part", ctypes.c_int64),
        ("offsets", ctypes.c_void_p),
    )


def insert_slices(
    sums: Float[Tensor, "nodes 3"],
    centre: int,
    limit: int,
    order: Int[Tensor, "m"],
    frames: Float[Tensor, "n 2 3"],
    values: Complex[Tensor, "n m"],
    weights: Float[Tensor, "n m"],
    shifts: Float[Tensor, "n 2"] | None = None,
) -> None:
    """Add slices to the sums (re, im, weight) of a grid, in float32.

    Parameters
    ----------
    sums : the nodes of a grid whose zero frequency is at (centre, centre, 0).
    limit : band limit of the slices.
    order : the band's coefficients by kx, then ky.
    frames : grid coordinates (x, y, z) of one step along kx and of one along ky.
    values, weights : what is added; with ``shifts``, images and their transfer functions ``C`` instead.
    shifts : where particles sit, in boxes: ``C X exp(2 pi i k.t)`` and ``C^2`` are added.
    """
    at_once = max(1, POINTS_AT_ONCE // len(order) // IMAGES_A_PART) * IMAGES_A_PART
    for rows in in_parts(len(values), at_once):
        moved = None if shifts is None else shifts[rows]
        _insert(sums, centre, limit, order, frames[rows], values[rows], weights[rows], moved)


def _insert(
    sums: Tensor,
    centre: int,
    limit: int,
    order: Tensor,
    frames: Tensor,
    values: Tensor,
    weights: Tensor,
    shifts: Tensor | None,
) -> None:
    native = library()
    assert native is not None
    sizes = (ctypes.c_int64 * 3)()
    native.hoarfrost_insertion_sizes(ctypes.c_int64(centre), ctypes.c_int64(limit), sizes)
    blocks, slabs, pieces_an_image = sizes
    count, cpu = len(values), torch.device("cpu")
    parts = -(-count // IMAGES_A_PART)
    order, frames = order.to(torch.int32).contiguous(), frames.float().contiguous()
    values, weights = values.to(torch.complex64).resolve_conj().contiguous(), weights.float().contiguous()
    shifts = None if shifts is None else shifts.float().contiguous()
    points = torch.empty(count * len(order) * 3)
    pieces = torch.empty(parts, IMAGES_A_PART * pieces_an_image, dtype=torch.int64)
    offsets = torch.empty(parts, blocks + 1, dtype=torch.int32)
    slices = _InsertedSlices(
        count,
        IMAGES_A_PART,
        len(order),
        limit,
        centre,
        pointer(order, torch.int32),
        pointer(frames, torch.float32),
        pointer(values, torch.complex64),
        pointer(weights, torch.float32),
        None if shifts is None else pointer(shifts, torch.float32),
        pointer(points, torch.float32),
        pointer(pieces, torch.int64),
        pieces.shape[1],
        pointer(offsets, torch.int32),
    )
    target = pointer(sums, torch.float32)

    def arrange(part: int) -> None:
        native.hoarfrost_arrange_slices(ctypes.byref(slices), ctypes.c_int64(part))

    def fill(slab: int) -> None:
        native.hoarfrost_fill_slab(ctypes.byref(slices), ctypes.c_int64(slab), target)

    map_parts(arrange, range(parts), cpu)
    # Neighbouring slabs share a plane of nodes.
    for first in (0, 1):
        map_parts(fill, range(first, slabs, 2), cpu)
