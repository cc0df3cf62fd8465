"""The radial power spectrum of the noise: measured on the background of images, taken out of them, and drawn from.

A spectrum holds the mean power ``E|X|^2`` of an orthonormal transform's coefficients on the shells 0, 1, 2, ...; white
noise of unit variance has power one everywhere.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hoarfrost.fourier.band import Band
from hoarfrost.physics.masks import soft_disc

EDGE = 0.04
"""Width of the soft edge between particle and background, as a fraction of the box."""
LEAST_OVERLAP = 0.1
"""Lags at which the background overlaps itself by less than this share of its area are not trusted in full."""


class NoiseAccumulator:
    """The noise spectrum of images that come a few at a time, from their background outside a circle.

    The background is cut out by a window. Its power spectrum is that of the noise, blurred: in real space, the noise's
    autocovariance times the window's autocorrelation. Dividing by the latter undoes the area and the blur together.
    """

    def __init__(self, band: Band, radius_px: float) -> None:
        self.band = band
        self.count = 0
        edge = EDGE * band.box
        disc = soft_disc(band.box, min(radius_px, 0.5 * math.sqrt(2) * band.box - 2 * edge), edge)
        self._window = 1 - disc
        self._power = torch.zeros(band.box, band.box // 2 + 1, dtype=torch.float64)

    def add(self, images: Float[Tensor, "b y x"]) -> None:
        """Take in more images, background at zero mean."""
        window = self._window.to(images)
        power = torch.fft.rfft2(images * window, norm="ortho").abs().square().sum(0)
        self._power += power.to(self._power)
        self.count += len(images)

    def join(self, other: NoiseAccumulator) -> None:
        """Take in what another has seen in the same band outside the same circle."""
        self._power += other._power
        self.count += other.count

    def spectrum(self) -> Float[Tensor, "shells"]:
        """Power per coefficient on shells 0 ... limit of the band; shell 0, which images lose, is given that of 1."""
        if self.count == 0:
            raise ValueError("a noise spectrum needs at least one image")
        box = self.band.box
        covariance = _autocorrelation(self._power / self.count, box)
        overlap = _autocorrelation(torch.fft.rfft2(self._window.double(), norm="ortho").abs().square(), box)
        unblurred = torch.fft.rfft2(covariance / overlap.clamp(min=LEAST_OVERLAP * float(overlap[0, 0]))).real
        kx, ky = self.band.k.unbind(-1)
        radial = self.band.shell_mean(unblurred[ky % box, kx])
        # Where next to nothing is left of the noise, the difference of large numbers may come out below zero.
        blurred = self.band.shell_mean((self._power / self.count)[ky % box, kx]) / float(overlap[0, 0])
        return _smooth(radial.maximum(1e-3 * blurred)).float()


def estimate_noise(images: Float[Tensor, "b y x"], band: Band, *, radius_px: float) -> Float[Tensor, "shells"]:
    """Noise power on shells 0 ... limit from the background of images outside a circle of ``radius_px`` pixels."""
    accumulator = NoiseAccumulator(band, radius_px)
    accumulator.add(images)
    return accumulator.spectrum()


def whiten(vectors: Complex[Tensor, "b m"], spectrum: Float[Tensor, "shells"], band: Band) -> Complex[Tensor, "b m"]:
    """Band vectors divided by the noise's deviation, so that their noise has unit power everywhere."""
    return vectors * band.at_shells(spectrum.rsqrt().to(vectors.real))


def sample_noise(
    count: int, box: int, spectrum: Float[Tensor, "shells"], generator: torch.Generator
) -> Float[Tensor, "{count} {box} {box}"]:
    """Images of Gaussian noise with this spectrum; shells beyond its end have the power of its last."""
    white = torch.randn(count, box, box, generator=generator, device=generator.device)
    ky = torch.fft.fftfreq(box, 1 / box, device=white.device)
    kx = torch.fft.rfftfreq(box, 1 / box, device=white.device)
    shell = torch.hypot(ky[:, None], kx).round().long().clamp(max=len(spectrum) - 1)
    deviation = spectrum.to(white).sqrt()[shell]
    return torch.fft.irfft2(torch.fft.rfft2(white) * deviation, s=(box, box))


def _autocorrelation(power: Float[Tensor, "y kx"], box: int) -> Float[Tensor, "y x"]:
    return torch.fft.irfft2(power, s=(box, box))


def _smooth(spectrum: Float[Tensor, "shells"]) -> Float[Tensor, "shells"]:
    """Logarithms averaged over neighbouring shells as 1:2:1, which leaves a power law nearly as it is."""
    logarithm = spectrum[1:].log()
    middle = 0.25 * (logarithm[:-2] + 2 * logarithm[1:-1] + logarithm[2:])
    smooth = torch.cat([logarithm[:1], middle, logarithm[-1:]]) if len(logarithm) > 2 else logarithm
    return torch.cat([smooth[:1], smooth]).exp()
