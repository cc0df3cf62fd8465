"""The one centred, orthonormal Fourier pair, and cropping or padding about the origin.

The origin of an axis of length D is index ``floor(D/2)`` in real and in Fourier space alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Complex, Float, Shaped
from torch import Tensor


def fourier_transform_2d(images: Float[Tensor, "*n y x"]) -> Complex[Tensor, "*n y x"]:
    """Centred orthonormal transform of images: sum |x|^2 = sum |X|^2, DC at ``floor(D/2)``."""
    return _forward(images, (-2, -1))


def inverse_fourier_transform_2d(spectra: Complex[Tensor, "*n y x"]) -> Float[Tensor, "*n y x"]:
    """Images of spectra with Hermitian symmetry (an imaginary rest is dropped)."""
    return _inverse(spectra, (-2, -1))


def fourier_transform_3d(volumes: Float[Tensor, "*n z y x"]) -> Complex[Tensor, "*n z y x"]:
    """Centred orthonormal transform of volumes."""
    return _forward(volumes, (-3, -2, -1))


def inverse_fourier_transform_3d(spectra: Complex[Tensor, "*n z y x"]) -> Float[Tensor, "*n z y x"]:
    """Volumes of spectra with Hermitian symmetry (an imaginary rest is dropped)."""
    return _inverse(spectra, (-3, -2, -1))


def crop_or_pad_centred(array: Shaped[Tensor, "..."], box: int, dims: Sequence[int]) -> Shaped[Tensor, "..."]:
    """Cut or zero-fill ``dims`` to length ``box`` so that index ``floor(D/2)`` stays the origin."""
    for dim in dims:
        length = array.shape[dim]
        start = length // 2 - box // 2
        if box <= length:
            array = array.narrow(dim, start, box)
        else:
            shape = list(array.shape)
            shape[dim] = box
            padded = array.new_zeros(shape)
            padded.narrow(dim, -start, length).copy_(array)
            array = padded
    return array


def resample_centred(array: Float[Tensor, "..."], box: int, dims: Sequence[int]) -> Float[Tensor, "..."]:
    """Fourier-crop or Fourier-pad a real array to ``box``, keeping its values (a constant stays that constant).

    Going down from an even box to another even box the Nyquist row has no partner; it is dropped with the shells
    beyond it, as in RELION.
    """
    scale = 1.0
    for dim in dims:
        scale *= (box / array.shape[dim]) ** 0.5
    spectrum = crop_or_pad_centred(_forward(array, tuple(dims)), box, dims)
    return _inverse(spectrum, tuple(dims)) * scale


def _forward(array: Tensor, dims: tuple[int, ...]) -> Tensor:
    return torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(array, dims), dim=dims, norm="ortho"), dims)


def _inverse(array: Tensor, dims: tuple[int, ...]) -> Tensor:
    return torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(array, dims), dim=dims, norm="ortho"), dims).real
