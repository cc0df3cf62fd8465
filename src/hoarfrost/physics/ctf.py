"""The contrast transfer function with the constants and signs of RELION 3.1.

In cycles per pixel ``f`` the sampled frequency is ``s = M f / pixel_size``, with ``M`` the anisotropic magnification.
The phase is then a polynomial in ``f``: the quadratic form of the defocus, the quartic of the spherical aberration
and a constant. One matrix product with the monomials of ``f`` and one sine evaluate it for a whole stack.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hoarfrost.physics.aberrations import electron_wavelength, symmetric_phase
from hoarfrost.types import Optics


def contrast_transfer_function(
    optics: Optics, frequency: Float[Tensor, "m 2"], *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "n m"]:
    """The CTF of each particle: positive at low frequency for underfocus, the amplitude contrast at DC.

    ``C = (sqrt(1 - w^2) sin(gamma) + w cos(gamma)) scale exp(-B s^2 / 4)``, the first factor written
    ``sin(gamma + asin(w))``, with the phase

    ``gamma = pi lambda df(theta) s^2 - pi/2 Cs lambda^3 s^4 + phase shift + symmetric aberrations``.

    Images that come multiplied by their CTF (``optics.premultiplied``) carry ``C^2``; whoever models them squares the
    value of this function.

    Parameters
    ----------
    optics : Optics
        The microscope's settings, one row a particle; each row is evaluated at its own pixel size.
    frequency : Tensor (m, 2)
        Frequencies (x, y) in cycles per pixel of the image as stored. The result is on their device.
    dtype : torch.dtype
        Precision of the result and of the phase. Float32 is off by less than 2e-4 up to a phase of 1000 radians (3 µm
        of defocus at 2 Å have 460); float64 is exact to 1e-11.

    Notes
    -----
    Formula and constants are those of RELION 3.1, where the magnification matrix acts on the frequency of every term.
    A stack without a CTF has ``amplitude_contrast = 1`` and neither defocus, spherical aberration nor phase shift:
    the phase is then 0, and ``C = w = 1`` everywhere.
    """
    basis = _monomials(frequency.double()).to(dtype)
    phase = _on_frequency(_phase_coefficients(optics), basis) @ basis
    symmetric = symmetric_phase(optics, frequency, dtype=dtype)
    ctf = (phase if symmetric is None else phase.add_(symmetric)).sin_()
    if (optics.b_factor != 0).any():
        ctf.mul_((_on_frequency(_envelope_coefficients(optics), basis) @ basis[1:4]).exp_())
    if (optics.scale != 1).any():
        ctf.mul_(_on_frequency(optics.scale[:, None], basis))
    return ctf


def defocus_derivative(
    optics: Optics, frequency: Float[Tensor, "m 2"], *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "n m"]:
    """Derivative of the CTF by a change of both defocus values, per Å; the astigmatism stays.

    The phase changes by ``pi lambda s^2``, and the sine's derivative is the CTF of a phase a quarter turn further on.
    """
    quarter = optics.replace(phase_shift=optics.phase_shift + math.pi / 2)
    basis = _monomials(frequency.double()).to(dtype)
    sampling = optics.magnification / optics.pixel_size[:, None, None]
    square = _quadratic(sampling.mT @ sampling) * (math.pi * electron_wavelength(optics.voltage))[:, None]
    return contrast_transfer_function(quarter, frequency, dtype=dtype) * (_on_frequency(square, basis) @ basis[1:4])


def is_unity(optics: Optics) -> Bool[Tensor, "n"]:
    """Particles whose CTF is one at every frequency: images without a CTF, and those in which it was corrected."""
    aberrant = (optics.defocus_u != 0) | (optics.defocus_v != 0) | (optics.spherical_aberration != 0)
    aberrant |= (optics.phase_shift != 0) | (optics.even_zernike != 0).any(-1)
    damped = (optics.b_factor != 0) | (optics.scale != 1)
    return (optics.amplitude_contrast == 1) & ~aberrant & ~damped


def _monomials(frequency: Float[Tensor, "m 2"]) -> Float[Tensor, "9 m"]:
    x, y = frequency.unbind(-1)
    xx, xy, yy = x * x, x * y, y * y
    return torch.stack([torch.ones_like(x), xx, xy, yy, xx * xx, xx * xy, xx * yy, xy * yy, yy * yy])


def _phase_coefficients(optics: Optics) -> Float[Tensor, "n 9"]:
    """Coefficients of the monomials in ``gamma + asin(w)``, float64."""
    wavelength = electron_wavelength(optics.voltage)
    sampling = optics.magnification / optics.pixel_size[:, None, None]
    direction = torch.stack([optics.defocus_angle.cos(), optics.defocus_angle.sin()], dim=-1)
    # The defocus along theta is dfV everywhere, and dfU - dfV more by the squared cosine to its axis.
    isotropic = optics.defocus_v[:, None, None] * torch.eye(2, dtype=direction.dtype)
    excess = (optics.defocus_u - optics.defocus_v)[:, None, None] * direction[:, :, None] * direction[:, None, :]
    defocus = _quadratic(sampling.mT @ (isotropic + excess) @ sampling)
    square = _quadratic(sampling.mT @ sampling)
    spherical = 1e7 * optics.spherical_aberration
    return torch.cat(
        [
            (optics.phase_shift + optics.amplitude_contrast.asin())[:, None],
            (math.pi * wavelength)[:, None] * defocus,
            (-0.5 * math.pi * spherical * wavelength**3)[:, None] * _squared(square),
        ],
        dim=-1,
    )


def _envelope_coefficients(optics: Optics) -> Float[Tensor, "n 3"]:
    sampling = optics.magnification / optics.pixel_size[:, None, None]
    return -0.25 * optics.b_factor[:, None] * _quadratic(sampling.mT @ sampling)


def _quadratic(form: Float[Tensor, "n 2 2"]) -> Float[Tensor, "n 3"]:
    """Coefficients of (x^2, xy, y^2) in a symmetric form."""
    return torch.stack([form[:, 0, 0], 2 * form[:, 0, 1], form[:, 1, 1]], dim=-1)


def _squared(quadratic: Float[Tensor, "n 3"]) -> Float[Tensor, "n 5"]:
    """Coefficients of (x^4, x^3 y, x^2 y^2, x y^3, y^4) in the square of a quadratic."""
    a, b, c = quadratic.unbind(-1)
    return torch.stack([a * a, 2 * a * b, b * b + 2 * a * c, 2 * b * c, c * c], dim=-1)


def _on_frequency(coefficients: Float[Tensor, "n c"], basis: Tensor) -> Float[Tensor, "n c"]:
    return coefficients.to(device=basis.device, dtype=basis.dtype)
