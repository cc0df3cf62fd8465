"""Images spread over the orientations that they may have, summed for each slice of a bank."""

from __future__ import annotations

import ctypes

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from hoarfrost.kernels.library import library, pointer
from hoarfrost.kernels.threads import in_parts, map_parts

COEFFICIENTS_A_PART = 64
"""Coefficients that one thread sums."""


class _SpreadImages(ctypes.Structure):
    """``SpreadImages`` of ``src/native/kernels.h``."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("images", "candidates", "coefficients", "slices")),
        *((name, ctypes.c_void_p) for name in ("orientation", "shift", "share", "data", "power")),
        *((name, ctypes.c_void_p) for name in ("cosines", "sines", "values", "weights")),
    )


def spread_images(
    data: Complex[Tensor, "b m"],
    power: Float[Tensor, "b m"],
    phases: Complex[Tensor, "t m"],
    orientation: Int[Tensor, "b c"],
    shift: Int[Tensor, "b c"],
    share: Float[Tensor, "b c"],
    slices: int,
) -> tuple[Complex[Tensor, "r m"], Float[Tensor, "r m"]]:
    """The sums of shifted data and of power, each image in every slice with its share; half-turns conjugated.

    Orientation ``slices + i`` is slice ``i`` turned by half a turn in the plane.
    """
    loaded = library()
    assert loaded is not None
    count, coefficients = data.shape
    values, weights = torch.zeros(slices, coefficients, dtype=torch.complex64), torch.zeros(slices, coefficients)
    inputs = [orientation.contiguous(), shift.contiguous(), share.contiguous(), data.resolve_conj().contiguous()]
    inputs += [power.contiguous(), phases.real.contiguous(), phases.imag.contiguous()]
    kinds = [torch.int64, torch.int64, torch.float32, torch.complex64, *[torch.float32] * 3]
    pointers = [pointer(one, kind) for one, kind in zip(inputs, kinds, strict=True)]
    results = (pointer(values, torch.complex64), pointer(weights, torch.float32))
    spread = _SpreadImages(count, orientation.shape[1], coefficients, slices, *pointers, *results)

    def add(part: slice) -> None:
        loaded.hoarfrost_spread_images(ctypes.byref(spread), ctypes.c_int64(part.start), ctypes.c_int64(part.stop))

    map_parts(add, in_parts(coefficients, COEFFICIENTS_A_PART), data.device)
    return values, weights
