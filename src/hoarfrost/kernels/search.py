"""The search of orientations and shifts on the CPU: coarse scores from 8-bit integer products, the best few exact.

Rows (an image at a shift) and slices are rounded to 255 levels. A factor common to all rows and the inverse to all
slices leaves every product as it is; the square root of the slices' mean amplitude evens out both, so that the strong
lowest coefficients do not leave too few levels for the rest. The error of a coarse score is then about a hundredth of
the deviation that the noise of the image gives it, and the best few are scored again in float32.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float, Int, Int8, Int32
from torch import Tensor

from hoarfrost.kernels.library import instruction_set, library, pointer
from hoarfrost.kernels.threads import in_parts, map_parts

BLOCK, LANES, DEPTH = 32, 16, 64
"""Slices compared at once, slices side by side in memory, and the multiple to which coefficients are padded."""

IMAGES_AT_ONCE = 16
"""Images that share a pass over the slices."""


class _PackedSlices(ctypes.Structure):
    _fields_ = [
        ("slices", ctypes.c_int64),
        ("coefficients", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("exact", "factor", "numbers", "raised", "units")),
    ]


class _SearchProblem(ctypes.Structure):
    _fields_ = [
        ("bank", ctypes.POINTER(_PackedSlices)),
        ("shifts", ctypes.c_int64),
        ("keep", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("data", "power", "norms", "cosines", "sines")),
        *((name, ctypes.c_void_p) for name in ("orientation", "shift", "score")),
    ]


@dataclass(frozen=True)
class PackedSlices:
    """Slices as 8-bit integers in the order in which the products want them."""

    slices: Complex[Tensor, "r m"]
    factor: Float[Tensor, "m"]  # rows are multiplied by it, slices divided
    numbers: Int8[Tensor, "blocks bytes"]
    raised: Int32[Tensor, "blocks sums"]
    units: Float[Tensor, "padded"]  # what a unit of a slice's integers stands for

    @classmethod
    def of(cls, slices: Complex[Tensor, "r m"]) -> PackedSlices:
        """Round the slices, each on its own scale."""
        slices = slices.resolve_conj().contiguous()
        count, coefficients = slices.shape
        factor = torch.view_as_real(slices).square().sum(-1).mean(0).pow(0.25)
        factor = factor.clamp(min=1e-6 * float(factor.max())) if float(factor.max()) > 0 else torch.ones_like(factor)
        blocks, depth = -(-count // BLOCK), -(-coefficients // DEPTH) * DEPTH
        packed = cls(
            slices,
            factor,
            torch.zeros(blocks, BLOCK * 2 * depth, dtype=torch.int8),
            torch.zeros(blocks, BLOCK * 2, dtype=torch.int32),
            torch.zeros(blocks * BLOCK),
        )
        loaded = library()
        assert loaded is not None
        loaded.hoarfrost_pack_slices(ctypes.byref(packed._structure()))
        return packed

    def _structure(self) -> _PackedSlices:
        return _PackedSlices(
            *self.slices.shape,
            pointer(self.slices, torch.complex64),
            pointer(self.factor, torch.float32),
            pointer(self.numbers, torch.int8),
            pointer(self.raised, torch.int32),
            pointer(self.units, torch.float32),
        )


def search_is_compiled(data: Complex[Tensor, "*n"]) -> bool:
    """Whether these numbers are searched here: the processor must have integer products, or PyTorch is faster."""
    return data.device.type == "cpu" and data.dtype == torch.complex64 and instruction_set() not in (None, "portable")


def best_poses(
    data: Complex[Tensor, "b m"],
    power: Float[Tensor, "b m"],
    phases: Complex[Tensor, "t m"],
    norms: Float[Tensor, "b r"],
    packed: PackedSlices,
    keep: int,
) -> tuple[Int[Tensor, "b c"], Int[Tensor, "b c"], Float[Tensor, "b c"]]:
    """Orientations, shifts and scores of the ``keep`` best orientations of every image, best first.

    ``data`` and ``power`` are ``v C X`` and ``v C^2``, ``phases`` ``exp(+2 pi i k.t)``, and ``norms`` the sums of
    ``v C^2 |Y|^2`` for the coarse scores. Orientation ``r + i`` is slice ``i`` turned by half a turn. Each orientation
    has the shift that is best by its coarse score; the score there is that of float32.
    """
    loaded = library()
    assert loaded is not None
    keep = min(keep, 2 * len(packed.slices))
    data, power, norms = data.resolve_conj().contiguous(), power.contiguous(), norms.contiguous()
    cosines, sines = phases.real.contiguous(), phases.imag.contiguous()
    orientation, shift = (torch.empty(len(data), keep, dtype=torch.int64) for _ in range(2))
    score = torch.empty(len(data), keep)
    bank = packed._structure()
    problem = _SearchProblem(
        ctypes.pointer(bank),
        len(phases),
        keep,
        pointer(data, torch.complex64),
        *(pointer(tensor, torch.float32) for tensor in (power, norms, cosines, sines)),
        pointer(orientation, torch.int64),
        pointer(shift, torch.int64),
        pointer(score, torch.float32),
    )

    def search(rows: slice) -> None:
        loaded.hoarfrost_search(ctypes.byref(problem), ctypes.c_int64(rows.start), ctypes.c_int64(rows.stop))

    share = -(-len(data) // (4 * torch.get_num_threads()))
    map_parts(search, in_parts(len(data), -(-share // IMAGES_AT_ONCE) * IMAGES_AT_ONCE or 1), data.device)
    return orientation, shift, score
