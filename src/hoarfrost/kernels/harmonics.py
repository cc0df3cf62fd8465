"""Cosines and sines of the multiples of many angles, and sums over them (``representations/splatting/separable.py``)."""

from __future__ import annotations

import ctypes

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.kernels.library import library, pointer


def harmonic_rows(
    cosines: Float[Tensor, "b n"], sines: Float[Tensor, "b n"], envelope: Float[Tensor, "k n"]
) -> Float[Tensor, "b rows n"]:
    """Cosines, then sines, of 0, 1, 2 ... times angles whose cosine and sine are given, under an envelope."""
    loaded = library()
    assert loaded is not None
    cosines, sines, envelope = cosines.contiguous(), sines.contiguous(), envelope.contiguous()
    images, (harmonics, count) = len(cosines), envelope.shape
    result = torch.empty(images, 2 * harmonics, count)
    loaded.hoarfrost_harmonic_rows(
        *(pointer(one, torch.float32) for one in (cosines, sines, envelope)),
        *(ctypes.c_int64(number) for number in (images, harmonics, count)),
        pointer(result, torch.float32),
    )
    return result


def harmonic_sums(rows: Float[Tensor, "b rows n"], gradient: Float[Tensor, "b rows n"]) -> Float[Tensor, "b 3 n"]:
    """Sums of gradient times row; of k times gradient times the row a right angle on; of k^2 times the first."""
    loaded = library()
    assert loaded is not None
    rows, gradient = rows.contiguous(), gradient.contiguous()
    images, harmonics, count = len(rows), rows.shape[1] // 2, rows.shape[2]
    result = torch.empty(images, 3, count)
    loaded.hoarfrost_harmonic_sums(
        *(pointer(one, torch.float32) for one in (rows, gradient)),
        *(ctypes.c_int64(number) for number in (images, harmonics, count)),
        pointer(result, torch.float32),
    )
    return result
