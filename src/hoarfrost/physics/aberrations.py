"""Higher-order aberrations and the magnification of an image, in RELION's parameters.

Zernike polynomials here take frequencies in 1/Å, not a fraction of an aperture, and have no normalising factor:
``Z(n, m) = R(n, |m|)(rho) cos(m phi)``, or ``sin(|m| phi)`` where ``m < 0`` (Zivanov, Nakane & Scheres 2020). The
anisotropic magnification acts on the frequency first, as on that of the CTF and of the slice.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.types import Optics

IDENTITY_TOLERANCE = 1e-6
"""Frequency matrices nearer to the identity than this are rounding in a table."""


def electron_wavelength(voltage: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Relativistic wavelength in Å of electrons accelerated by ``voltage`` kV, with RELION's constants."""
    volts = 1e3 * voltage
    return 12.2643247 / torch.sqrt(volts * (1 + 0.978466e-6 * volts))


def projection_limit(thickness: float, voltage: float) -> float:
    """Resolution in Å beyond which images of a particle ``thickness`` Å deep are no projections; ``voltage`` in kV.

    The Ewald sphere is flat as long as ``t lambda / (2 d^2) < 0.7`` (DeRosier, Ultramicroscopy 81, 83 (2000)): the
    near and the far side of the particle, ``t / 2`` out of focus, are then up to ``0.7 pi`` out of phase.
    """
    wavelength = float(electron_wavelength(torch.tensor([voltage], dtype=torch.float64)))
    return math.sqrt(thickness * wavelength / 1.4)


def symmetric_phase(
    optics: Optics, frequency: Float[Tensor, "m 2"], *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "n m"] | None:
    """What the even Zernike terms add to the CTF's phase, radians; None where there are none.

    RELION adds them to the negative of our phase, so that they enter here with a minus sign.
    """
    if not optics.even_zernike.any():
        return None

    def evaluate(s: Float[Tensor, "m 2"], settings: Float[Tensor, "c"]) -> Float[Tensor, "m"]:
        return -_zernike_sum(s, settings, even_order)

    return _by_setting(optics, frequency, optics.even_zernike, evaluate, dtype)


def antisymmetric_phase(
    optics: Optics, frequency: Float[Tensor, "m 2"], *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "n m"] | None:
    """Phase of beam tilt and odd Zernike terms, radians, at ``frequency`` in cycles per pixel; None without any.

    Images carry the factor ``exp(i phase)``; its conjugate takes the aberration out. A beam tilt ``(tx, ty)`` is axial
    coma, ``-2 pi Cs lambda^2 s^2 (tx sx + ty sy)``; the image shift that tilt alone would make is left to the pose.
    """
    spherical, tilt = 1e7 * optics.spherical_aberration, 1e-3 * optics.beam_tilt
    coma = (-2 * math.pi * spherical * electron_wavelength(optics.voltage) ** 2)[:, None] * tilt
    if not coma.any() and not optics.odd_zernike.any():
        return None

    def evaluate(s: Float[Tensor, "m 2"], settings: Float[Tensor, "c"]) -> Float[Tensor, "m"]:
        tilted = s.square().sum(-1) * (s @ settings[:2])
        return tilted + _zernike_sum(s, settings[2:], odd_order)

    return _by_setting(optics, frequency, torch.cat([coma, optics.odd_zernike], dim=-1), evaluate, dtype)


def sampled_frequency_matrices(optics: Optics, reference_pixel_size: float) -> Float[Tensor, "n 2 2"] | None:
    """Matrices from Fourier pixels of each image to those of the reference map; None where all are the identity.

    The image of a particle at ``k`` is the slice at ``M k``: the anisotropic magnification (``rlnMagMat``), and the
    ratio of the reference's pixel size (Å) to the particle's. Both have the same box. Float64.
    """
    ratio = reference_pixel_size / optics.pixel_size
    matrices = optics.magnification * ratio[:, None, None]
    identity = torch.eye(2, dtype=matrices.dtype, device=matrices.device)
    return None if ((matrices - identity).abs() < IDENTITY_TOLERANCE).all() else matrices


def even_order(index: int) -> tuple[int, int]:
    """Degree and azimuthal order (n, m) of coefficient ``index`` of ``rlnEvenZernike``: n = 0, 2, ...; m ascending."""
    half = math.isqrt(index)
    return 2 * half, 2 * (index - half * half) - 2 * half


def odd_order(index: int) -> tuple[int, int]:
    """Degree and azimuthal order (n, m) of coefficient ``index`` of ``rlnOddZernike``: n = 1, 3, ...; m ascending."""
    half = (math.isqrt(1 + 4 * index) - 1) // 2
    degree = 2 * half + 1
    return degree, 2 * (index - half * (half + 1)) - degree


def zernike(degree: int, order: int, points: Float[Tensor, "m 2"]) -> Float[Tensor, "m"]:
    """Zernike polynomial at points (x, y): the radial polynomial times the cosine (order < 0: sine) of the angle."""
    m = abs(order)
    harmonic = torch.view_as_complex(points.contiguous()) ** m
    square = points.square().sum(-1)
    radial = torch.zeros_like(square)
    for k in range((degree - m) // 2 + 1):
        numerator = (-1) ** k * math.factorial(degree - k)
        half_sum, half_difference = (degree + m) // 2 - k, (degree - m) // 2 - k
        weight = numerator / (math.factorial(k) * math.factorial(half_sum) * math.factorial(half_difference))
        radial += weight * square**half_difference
    return radial * (harmonic.imag if order < 0 else harmonic.real)


def _zernike_sum(
    points: Float[Tensor, "m 2"], coefficients: Float[Tensor, "c"], order: Callable[[int], tuple[int, int]]
) -> Float[Tensor, "m"]:
    total = torch.zeros_like(points[:, 0])
    for index in coefficients.nonzero()[:, 0].tolist():
        total += coefficients[index] * zernike(*order(index), points)
    return total


def _by_setting(
    optics: Optics,
    frequency: Float[Tensor, "m 2"],
    settings: Float[Tensor, "n c"],
    evaluate: Callable[[Tensor, Tensor], Tensor],
    dtype: torch.dtype,
) -> Float[Tensor, "n m"]:
    """Evaluate once for every distinct optics setting: a stack has many particles and few of these."""
    sampling = (optics.magnification / optics.pixel_size[:, None, None]).flatten(1)
    distinct, which = torch.unique(torch.cat([sampling, settings], dim=-1), dim=0, return_inverse=True)
    rows = [evaluate(frequency.double() @ row[:4].reshape(2, 2).mT, row[4:]) for row in distinct.to(frequency.device)]
    return torch.stack(rows).to(dtype)[which.to(frequency.device)]
