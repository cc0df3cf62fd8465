"""Normalising images in place, and picking the coefficients of a band from their transforms."""

from __future__ import annotations

import ctypes

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from hoarfrost.kernels.library import library, pointer


def normalise_images(images: Float[Tensor, "b y x"], radius: float, invert: bool) -> None:
    """Bring float32 images to mean 0 and deviation 1 of their background, in place, and invert them if asked.

    The background are the pixels further than ``radius`` pixels from the centre. An image whose background is next to
    constant takes the deviation of the whole image; one that is constant becomes zero.
    """
    native = library()
    assert native is not None
    native.hoarfrost_normalise_images(
        pointer(images, torch.float32),
        ctypes.c_int64(len(images)),
        ctypes.c_int64(images.shape[-1]),
        ctypes.c_double(radius),
        ctypes.c_int64(invert),
    )


def pick_coefficients(
    spectra: Complex[Tensor, "b p"], place: Int[Tensor, "m"], factor: Complex[Tensor, "m"]
) -> Complex[Tensor, "b m"]:
    """``spectra[:, place] * factor`` in complex64."""
    native = library()
    assert native is not None
    result = torch.empty(len(spectra), len(place), dtype=torch.complex64)
    place, factor = place.to(torch.int32).contiguous(), factor.to(torch.complex64).contiguous()
    native.hoarfrost_pick_coefficients(
        pointer(spectra, torch.complex64),
        ctypes.c_int64(len(spectra)),
        ctypes.c_int64(spectra.shape[1]),
        pointer(place, torch.int32),
        pointer(factor, torch.complex64),
        ctypes.c_int64(len(place)),
        pointer(result, torch.complex64),
    )
    return result
