"""Whether a microscope, a box and a particle go together, told from the numbers of the table alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from hoarfrost.physics.aberrations import electron_wavelength
from hoarfrost.physics.ctf import is_unity
from hoarfrost.types import Optics, Particles

Level = Literal["error", "warning", "info"]

FEWEST_SHELLS = 6
"""Fourier pixels that a map has at least: with fewer there is nothing that orients a particle."""


@dataclass(frozen=True)
class Finding:
    """Something to know about a stack: how grave, what, and what to do."""

    level: Level
    text: str
    remedy: str = ""

    @property
    def line(self) -> str:
        """Text and remedy in one line."""
        return f"{self.text}; {self.remedy}" if self.remedy else self.text


def of_optics(optics: Optics) -> Iterator[Finding]:
    """Pixel sizes, voltages, defoci and the like that no microscope or no good session gives."""
    sizes = optics.pixel_size
    if float(sizes.max() / sizes.min()) > 1.1:
        yield Finding(
            "warning",
            f"pixel sizes from {float(sizes.min()):.4g} to {float(sizes.max()):.4g} Å in one stack",
            "check them; each particle is used at its own",
        )
    if float(sizes.median()) > 12 or float(sizes.median()) < 0.2:
        yield Finding(
            "warning", f"a pixel of {float(sizes.median()):.4g} Å is unusual", "expected 0.3 to 10 Å; check it"
        )
    if bool(is_unity(optics).all()):
        yield Finding("info", "the table holds no CTF", "images are taken as they are, with a CTF of 1")
        return
    defocus = 0.5 * (optics.defocus_u + optics.defocus_v)
    limits = (
        ("voltage", optics.voltage, 80.0, 300.0, "kV"),
        ("spherical aberration", optics.spherical_aberration, 0.001, 5.0, "mm"),
        ("amplitude contrast", optics.amplitude_contrast, 0.0, 0.3, ""),
        ("defocus", defocus, 200.0, 80000.0, "Å"),
    )
    for what, values, low, high, unit in limits:
        outside = ((values < low) | (values > high)).nonzero()
        if len(outside):
            row = int(outside[0])
            yield Finding(
                "warning",
                f"row {row + 1}: {what} {float(values[row]):.5g} {unit}".rstrip() + f" ({len(outside)} rows in all)",
                f"usual are {low:g} to {high:g} {unit}".rstrip() + "; check units and columns",
            )
    if len(optics) >= 20 and float(defocus.max() - defocus.min()) < 1.0 and not optics.phase_shift.any():
        yield Finding(
            "warning",
            f"every particle has the same defocus ({float(defocus[0]):.0f} Å)",
            "fit the CTF of each micrograph: its zeros are lost in all images alike",
        )


def of_resolution(particles: Particles, resolution: float | None) -> Iterator[Finding]:
    """Whether images of this box and pixel size can be taken to ``resolution`` Å and no further."""
    box, pixel = particles.box, particles.pixel_size
    finest, coarsest = 2 * pixel, box * pixel / FEWEST_SHELLS
    if resolution is not None and not 0.999 * finest <= resolution <= coarsest:
        yield Finding(
            "error",
            f"a highest resolution of {resolution:g} Å is out of reach: a box of {box} pixels of {pixel:.4g} Å holds "
            f"detail from {coarsest:.3g} to {finest:.3g} Å",
            "choose between these, or leave it out",
        )


def of_geometry(particles: Particles, diameter: float | None) -> Iterator[Finding]:
    """Whether the particle, and the detail that defocus throws out of it, fit into the box."""
    box, pixel = particles.box, particles.pixel_size
    side = box * pixel
    if diameter is not None and diameter > side:
        yield Finding(
            "error",
            f"the diameter of {diameter:g} Å is larger than the box ({box} pixels, {side:.0f} Å)",
            f"check it, or extract with at least {good_box(1.5 * diameter / pixel)} pixels",
        )
    elif diameter is not None and diameter > 0.9 * side:
        yield Finding(
            "warning",
            f"the particle ({diameter:g} Å) nearly fills the box ({side:.0f} Å): there is no background to measure "
            "noise in",
            f"extract with at least {good_box(1.5 * diameter / pixel)} pixels",
        )
    elif diameter is not None and diameter < 8 * pixel:
        yield Finding(
            "warning", f"a diameter of {diameter:g} Å is {diameter / pixel:.1f} pixels", "check it, or bin less"
        )
    yield from _delocalised(particles, diameter or 0.6 * side)


def _delocalised(particles: Particles, diameter: float) -> Iterator[Finding]:
    """Defocus moves detail of spacing 1/s by ``lambda df s - Cs lambda^3 s^3`` out of the particle's outline."""
    optics = particles.optics
    if bool(is_unity(optics).all()):
        return
    side, nyquist = particles.box * particles.pixel_size, 0.5 / particles.pixel_size
    wavelength = electron_wavelength(optics.voltage)
    defocus = 0.5 * (optics.defocus_u + optics.defocus_v).abs()
    row = int((wavelength * defocus).argsort()[int(0.9 * (len(optics) - 1))])
    frequency = torch.linspace(0, nyquist, 400, dtype=torch.float64)
    spherical = 1e7 * optics.spherical_aberration[row] * wavelength[row] ** 3
    moved = (wavelength[row] * defocus[row] * frequency - spherical * frequency**3).abs()
    lost = (moved > side / 2).nonzero()
    if len(lost):
        resolution = 1 / float(frequency[int(lost[0])])
        needed = (2 * float(moved[int(2 / 3 * 399)]) + diameter) / particles.pixel_size
        yield Finding(
            "warning" if resolution > 4 * particles.pixel_size else "info",
            f"at a defocus of {float(defocus[row]) * 1e-4:.1f} µm detail beyond {resolution:.1f} Å leaves the box of "
            f"{particles.box} pixels, and the CTF is too fast to sample there",
            f"extract with {good_box(needed)} pixels where that detail matters",
        )


def good_box(pixels: float) -> int:
    """The next even box with small prime factors, on which transforms are fast."""
    box = 2 * -int(-pixels // 2)
    while not _smooth(box):
        box += 2
    return box


def _smooth(number: int) -> bool:
    for prime in (2, 3, 5, 7):
        while number % prime == 0:
            number //= prime
    return number == 1
