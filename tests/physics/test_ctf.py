"""The contrast transfer function against its definition, torch-ctf, and the contrast of a known object."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_ctf import calculate_ctf_2d

from hoarfrost.fourier.band import Band
from hoarfrost.physics.aberrations import electron_wavelength
from hoarfrost.physics.ctf import contrast_transfer_function, is_unity
from hoarfrost.types import Optics
from phantoms import GaussianPhantom

SETTINGS = {
    "defocus_u": st.floats(3000, 35000),
    "astigmatism": st.floats(-800, 800),
    "angle": st.floats(-180, 180),
    "voltage": st.sampled_from([100.0, 200.0, 300.0]),
    "cs": st.sampled_from([0.001, 1.4, 2.7]),
    "contrast": st.floats(0.0, 0.3),
    "phase_shift": st.floats(0, 180),
    "pixel_size": st.floats(1.0, 5.0),
}


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def microscope(count: int = 1, *, pixel_size: float = 1.5, defocus: float = 15000.0, **columns: Tensor) -> Optics:
    optics = Optics.uniform(count, pixel_size=pixel_size)
    level = torch.full((count,), defocus, dtype=torch.float64)
    return optics.replace(defocus_u=level, defocus_v=level).replace(**columns)


@settings(max_examples=40, deadline=None)
@given(**SETTINGS)
def test_agrees_with_torch_ctf(
    defocus_u: float,
    astigmatism: float,
    angle: float,
    voltage: float,
    cs: float,
    contrast: float,
    phase_shift: float,
    pixel_size: float,
) -> None:
    box = 32
    band = Band.to_nyquist(box)
    optics = Optics.uniform(
        1, pixel_size=pixel_size, voltage=voltage, spherical_aberration=cs, amplitude_contrast=contrast
    ).replace(
        defocus_u=column(defocus_u),
        defocus_v=column(defocus_u - astigmatism),
        defocus_angle=column(math.radians(angle)),
        phase_shift=column(math.radians(phase_shift)),
    )
    # Micrometres and degrees there; a negative half-difference of the defoci is the positive one turned by 90 degrees.
    other = calculate_ctf_2d(
        defocus=1e-4 * (defocus_u - astigmatism / 2),
        astigmatism=1e-4 * abs(astigmatism) / 2,
        astigmatism_angle=angle if astigmatism >= 0 else angle + 90,
        voltage=voltage,
        spherical_aberration=cs,
        amplitude_contrast=contrast,
        phase_shift=phase_shift,
        pixel_size=pixel_size,
        image_shape=(box, box),
        rfft=False,
        fftshift=True,
    )
    theirs = other[band.k[:, 1] + box // 2, band.k[:, 0] + box // 2]
    ours = contrast_transfer_function(optics, band.frequency)[0]
    # RELION's wavelength differs from that of CODATA's constants, which torch-ctf takes, by five parts in a million.
    wavelength = float(electron_wavelength(column(voltage)))
    s = band.radius / (box * pixel_size)
    defocus_phase = math.pi * wavelength * (defocus_u + 800) * s**2
    spherical_phase = 0.5 * math.pi * 1e7 * cs * wavelength**3 * s**4
    assert ((ours - theirs).abs() < 2e-4 + 7e-6 * (defocus_phase + 3 * spherical_phase)).all()


def test_is_the_formula_of_the_conventions() -> None:
    """Written out once more, one frequency at a time, in plain numbers."""
    optics = Optics.uniform(1, pixel_size=1.3, voltage=200.0, spherical_aberration=1.4, amplitude_contrast=0.08)
    optics = optics.replace(
        defocus_u=column(14000.0),
        defocus_v=column(12500.0),
        defocus_angle=column(0.7),
        phase_shift=column(0.4),
        b_factor=column(60.0),
        scale=column(0.9),
    )
    frequencies = [(0.0, 0.0), (0.1, 0.0), (0.0, 0.2), (-0.15, 0.22), (0.31, 0.27)]
    ctf = contrast_transfer_function(optics, torch.tensor(frequencies), dtype=torch.float64)[0]
    volts = 200e3
    wavelength = 12.2643247 / math.sqrt(volts + 0.978466e-6 * volts**2)
    for value, (x, y) in zip(ctf.tolist(), frequencies, strict=True):
        s, theta = math.hypot(x, y) / 1.3, math.atan2(y, x)
        defocus = 0.5 * (14000 + 12500 + (14000 - 12500) * math.cos(2 * (theta - 0.7)))
        gamma = math.pi * wavelength * defocus * s**2 - 0.5 * math.pi * 1.4e7 * wavelength**3 * s**4 + 0.4
        wave = math.sqrt(1 - 0.08**2) * math.sin(gamma) + 0.08 * math.cos(gamma)
        # Frequencies came in as float32.
        assert value == pytest.approx(wave * 0.9 * math.exp(-60 * s**2 / 4), abs=1e-5)


def test_positive_density_is_bright_under_focus(generator: torch.Generator) -> None:
    """Low-passed to where the CTF has not yet turned, the image of positive masses is positive where they lie."""
    box, pixel_size = 64, 4.0
    phantom = GaussianPhantom(torch.tensor([[20.0, -12.0, 5.0]]).double(), column(12.0), column(1.0))
    clean = phantom.project(torch.eye(3)[None], torch.zeros(1, 2), box, pixel_size)
    band = Band.to_nyquist(box)
    ctf = contrast_transfer_function(microscope(pixel_size=pixel_size, defocus=10000.0), band.frequency)
    assert (ctf[:, band.radius < 16] > 0).all()
    image = band.to_images(band.from_images(clean.float()) * ctf)[0]
    assert int(image.argmax()) == int(clean[0].argmax())
    assert image.max() > 3 * image.min().abs()


def test_is_the_amplitude_contrast_at_zero_frequency() -> None:
    origin = torch.zeros(1, 2)
    optics = microscope(3, amplitude_contrast=column(0.0, 0.07, 0.2))
    assert torch.allclose(contrast_transfer_function(optics, origin)[:, 0], torch.tensor([0.0, 0.07, 0.2]))
    quarter = optics.replace(phase_shift=torch.full((3,), math.pi / 2, dtype=torch.float64))
    expected = (1 - optics.amplitude_contrast**2).sqrt().float()
    assert torch.allclose(contrast_transfer_function(quarter, origin)[:, 0], expected)


def test_each_particle_has_its_own_pixel_size() -> None:
    frequency = Band(64, 20).frequency
    mixed = microscope(2).replace(pixel_size=column(1.0, 2.0))
    ctf = contrast_transfer_function(mixed, frequency)
    assert torch.allclose(ctf[1], contrast_transfer_function(mixed[:1], frequency / 2)[0], atol=1e-5)
    assert (ctf[0] - ctf[1]).abs().max() > 0.5


def test_magnification_acts_on_the_frequency() -> None:
    frequency = Band(64, 25).frequency
    matrix = torch.tensor([[1.03, 0.02], [0.05, 0.96]], dtype=torch.float64)
    optics = microscope(defocus_v=column(14000.0), b_factor=column(50.0))
    stretched = contrast_transfer_function(optics.replace(magnification=matrix[None]), frequency)
    assert torch.allclose(stretched, contrast_transfer_function(optics, frequency @ matrix.mT), atol=1e-5)


def test_envelope_falls_as_the_b_factor_says() -> None:
    frequency = Band(64, 25).frequency
    plain, damped = microscope(), microscope(b_factor=column(80.0), scale=column(0.5))
    s = torch.linalg.vector_norm(frequency, dim=-1) / 1.5
    expected = 0.5 * contrast_transfer_function(plain, frequency)[0] * torch.exp(-80 * s**2 / 4)
    assert torch.allclose(contrast_transfer_function(damped, frequency)[0], expected.float(), atol=1e-6)


def test_single_precision_keeps_the_promised_accuracy() -> None:
    """The bound of the docstring, at phases near a thousand radians."""
    frequency = Band(256, 127).frequency[::7]
    optics = microscope(20, pixel_size=1.0, defocus=60000.0)
    angles = torch.linspace(0, math.pi, 20, dtype=torch.float64)
    optics = optics.replace(defocus_v=optics.defocus_v - 1500, defocus_angle=angles)
    double = contrast_transfer_function(optics, frequency, dtype=torch.float64)
    assert contrast_transfer_function(optics, frequency).dtype == torch.float32
    assert (contrast_transfer_function(optics, frequency) - double).abs().max() < 2e-4


def test_a_stack_without_ctf_has_transfer_one() -> None:
    optics = Optics.uniform(2, pixel_size=1.0, spherical_aberration=0.0, amplitude_contrast=1.0)
    assert torch.equal(contrast_transfer_function(optics, Band(32, 15).frequency), torch.ones(2, len(Band(32, 15))))
    assert is_unity(optics).all()
    assert is_unity(optics.replace(defocus_u=column(0.0, 8000.0))).tolist() == [True, False]
    assert not is_unity(microscope()).any()
