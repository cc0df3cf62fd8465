"""Higher-order aberrations in RELION's parameters."""

import math

import torch
from torch import Tensor

from hoarfrost.fourier.band import Band
from hoarfrost.physics.aberrations import (
    antisymmetric_phase,
    even_order,
    odd_order,
    projection_limit,
    sampled_frequency_matrices,
    symmetric_phase,
    zernike,
)
from hoarfrost.physics.ctf import contrast_transfer_function
from hoarfrost.types import Optics

FREQUENCY = Band(64, 28).frequency


def rows(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def microscope(count: int = 1, **columns: Tensor) -> Optics:
    return Optics.uniform(count, pixel_size=1.2).replace(**columns)


def test_order_of_the_coefficients() -> None:
    """Degrees ascend; within one, the azimuthal order runs from -n to n."""
    assert [even_order(i) for i in range(9)] == [
        (0, 0), (2, -2), (2, 0), (2, 2), (4, -4), (4, -2), (4, 0), (4, 2), (4, 4),
    ]  # fmt: skip
    assert [odd_order(i) for i in range(6)] == [(1, -1), (1, 1), (3, -3), (3, -1), (3, 1), (3, 3)]
    assert odd_order(6) == (5, -5)


def test_polynomials_are_the_known_ones() -> None:
    x, y = (2 * torch.rand(2, 50, dtype=torch.float64) - 1).unbind(0)
    points, square = torch.stack([x, y], dim=-1), x * x + y * y
    known = {
        (0, 0): torch.ones_like(x),
        (1, -1): y,
        (2, 0): 2 * square - 1,
        (2, -2): 2 * x * y,
        (3, 1): (3 * square - 2) * x,
        (3, -3): 3 * x * x * y - y**3,
        (4, 0): 6 * square**2 - 6 * square + 1,
        (4, 2): (4 * square - 3) * (x * x - y * y),
    }
    for (degree, order), expected in known.items():
        assert torch.allclose(zernike(degree, order, points), expected), (degree, order)


def test_polynomials_are_orthogonal_on_the_unit_disc() -> None:
    axis = torch.linspace(-1, 1, 401, dtype=torch.float64)
    x, y = torch.meshgrid(axis, axis, indexing="ij")
    points = torch.stack([x, y], dim=-1)[x * x + y * y <= 1]
    values = torch.stack([zernike(*even_order(i), points) for i in range(9)])
    gram = values @ values.mT / len(points)
    expected = [1 / (n + 1) * (1.0 if m == 0 else 0.5) for n, m in map(even_order, range(9))]
    assert (gram - torch.diag(rows(*expected))).abs().max() < 0.01


def test_parity_makes_images_real() -> None:
    optics = microscope(beam_tilt=rows([0.4, -0.2]), odd_zernike=rows([1, 2, 30, -20, 10, 5]))
    odd = antisymmetric_phase(optics, FREQUENCY)
    even = symmetric_phase(microscope(even_zernike=rows([0.1, 2, -3, 4])), FREQUENCY)
    assert odd is not None
    assert even is not None
    assert torch.equal(antisymmetric_phase(optics, -FREQUENCY), -odd)
    assert torch.equal(symmetric_phase(microscope(even_zernike=rows([0.1, 2, -3, 4])), -FREQUENCY), even)


def test_beam_tilt_is_axial_coma() -> None:
    """-2 pi Cs lambda^2 s^2 (tilt . s), in ångström and radians; 0.0196875 Å is the wavelength at 300 kV."""
    phase = antisymmetric_phase(microscope(beam_tilt=rows([0.5, -0.3])), FREQUENCY, dtype=torch.float64)
    s = FREQUENCY / 1.2
    expected = -2 * math.pi * 2.7e7 * 0.0196875**2 * s.square().sum(-1) * (s @ rows(0.5e-3, -0.3e-3))
    assert phase is not None
    assert torch.allclose(phase[0], expected, rtol=1e-4)


def test_coma_written_as_zernike_terms_is_the_same() -> None:
    """What a tilt does, in Z(3, 1) and Z(3, -1), with the linear part of the polynomial given back by Z(1, .)."""
    phase = antisymmetric_phase(microscope(beam_tilt=rows([0.5, -0.3])), FREQUENCY)
    scale = 2e4 * math.pi * 2.7 * (12.2643247**2 / (3e5 * (1 + 0.978466e-6 * 3e5)))
    x, y = -scale * 0.5 / 3, scale * 0.3 / 3
    other = antisymmetric_phase(microscope(odd_zernike=rows([2 * y, 2 * x, 0, y, x, 0])), FREQUENCY)
    assert phase is not None
    assert other is not None
    assert torch.allclose(phase, other, atol=1e-5)


def test_even_terms_enter_the_ctf_as_negative_phases() -> None:
    """A constant term of RELION's is a phase shift the other way; a quadratic one is a defocus."""
    optics = Optics.uniform(2, pixel_size=1.2).replace(defocus_u=rows(9e3, 9e3), defocus_v=rows(9e3, 9e3))
    shifted = contrast_transfer_function(optics.replace(phase_shift=rows(-0.3, -0.3)), FREQUENCY)
    zernike_terms = optics.replace(even_zernike=rows([0.3], [0.3]))
    assert torch.allclose(contrast_transfer_function(zernike_terms, FREQUENCY), shifted, atol=1e-5)
    wavelength = 12.2643247 / math.sqrt(3e5 * (1 + 0.978466e-6 * 3e5))
    defocused = optics.replace(defocus_u=rows(9.5e3, 9.5e3), defocus_v=rows(9.5e3, 9.5e3))
    # 2 rho^2 - 1 with coefficient c is the defocus -2 c / (pi lambda) and the phase shift c.
    c = -500 * math.pi * wavelength / 2
    equal = optics.replace(even_zernike=rows([c, 0, c, 0], [c, 0, c, 0]))
    assert torch.allclose(
        contrast_transfer_function(equal, FREQUENCY), contrast_transfer_function(defocused, FREQUENCY), atol=1e-4
    )


def test_magnification_and_pixel_size_act_on_the_frequency_first() -> None:
    matrix = rows([1.02, 0.03], [-0.01, 0.97])
    tilted = microscope(2, beam_tilt=rows([0.5, 0.2], [0.5, 0.2]), pixel_size=rows(1.2, 2.4))
    phase = antisymmetric_phase(tilted.replace(magnification=torch.stack([matrix, matrix])), FREQUENCY)
    straight = antisymmetric_phase(tilted[:1], FREQUENCY @ matrix.mT)
    half = antisymmetric_phase(tilted[:1], FREQUENCY @ matrix.mT / 2)
    assert phase is not None
    assert straight is not None
    assert half is not None
    assert torch.allclose(phase, torch.cat([straight, half]), atol=1e-6)


def test_nothing_costs_nothing() -> None:
    optics = microscope(3, odd_zernike=torch.zeros(3, 6).double(), even_zernike=torch.zeros(3, 4).double())
    assert antisymmetric_phase(optics, FREQUENCY) is None
    assert symmetric_phase(optics, FREQUENCY) is None
    assert sampled_frequency_matrices(optics, 1.2) is None
    assert sampled_frequency_matrices(optics, 1.2 * (1 + 1e-8)) is None


def test_frequency_matrices_take_an_image_to_the_reference() -> None:
    """A particle at twice the reference's pixel size shows, at its Fourier pixel k, the map's at k / 2."""
    matrix = rows([1.02, 0.03], [-0.01, 0.97])
    optics = microscope(2, pixel_size=rows(1.2, 2.4))
    optics = optics.replace(magnification=torch.stack([torch.eye(2).double(), matrix]))
    found = sampled_frequency_matrices(optics, 1.2)
    assert found is not None
    assert torch.allclose(found, torch.stack([torch.eye(2).double(), matrix / 2]))


def test_the_far_side_of_a_particle_is_out_of_phase_at_the_limit_of_projections():
    depth, voltage = 700.0, 200.0
    limit = projection_limit(depth, voltage)
    frequency = rows([1.2 / limit, 0.0])  # cycles a pixel
    focus = torch.tensor([10000.0, 10000.0 + depth / 2], dtype=torch.float64)

    def transfer(amplitude):
        columns = {"amplitude_contrast": amplitude, "spherical_aberration": 0.0, "voltage": voltage}
        optics = microscope(2, **{name: torch.full((2,), value).double() for name, value in columns.items()})
        return contrast_transfer_function(optics.replace(defocus_u=focus, defocus_v=focus), frequency)[:, 0].double()

    # Without spherical aberration pure amplitude contrast is the cosine of the phase, pure phase contrast its sine.
    phase = torch.atan2(transfer(0.0), transfer(1.0))
    assert math.isclose(float(phase[1] - phase[0]) % (2 * math.pi), 0.7 * math.pi, rel_tol=1e-3)
