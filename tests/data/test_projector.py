"""The simulation's projector against projections known in closed form and against sums over atoms."""

import math

import gemmi
import pytest
import torch
from torch import Tensor

from hoarfrost.data.density import density_from_atoms
from hoarfrost.data.projector import SeriesProjector
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid, as_table
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.io.atoms import read_atoms
from phantoms import GaussianPhantom


def loss(first: Tensor, second: Tensor) -> float:
    """One minus the correlation of band vectors, the worst of a batch."""
    product = (first * second.conj()).real.sum(-1)
    norms = (first.abs().square().sum(-1) * second.abs().square().sum(-1)).sqrt()
    return float(1 - (product / norms).min())


@pytest.mark.parametrize("box", [64, 65])
@pytest.mark.parametrize(("fill", "bound"), [(0.3, 2e-5), (0.42, 2e-4)])
def test_projections_agree_with_the_analytic_ones(
    box: int, fill: float, bound: float, generator: torch.Generator
) -> None:
    phantom = GaussianPhantom.random(40, fill * box * 3.0, generator, sigma=5.0)
    rotations = random_rotations(12, generator)
    band = Band.to_nyquist(box)
    truth = band.from_images(phantom.project(rotations, torch.zeros(12, 2), box, 3.0)) / 3.0
    slices = SeriesProjector(phantom.volume(box, 3.0)).project(rotations, band)
    assert loss(slices, truth.to(slices)) < bound
    assert (slices - truth).abs().max() < 0.03 * truth.abs().max()


def test_every_shell_is_right(generator: torch.Generator) -> None:
    box = 64
    phantom = GaussianPhantom.random(60, 0.3 * box * 2.0, generator, sigma=4.0)
    rotations = random_rotations(20, generator)
    band = Band.to_nyquist(box)
    truth = band.from_images(phantom.project(rotations, torch.zeros(20, 2), box, 2.0)) / 2.0
    slices = SeriesProjector(phantom.volume(box, 2.0)).project(rotations, band)
    error = band.shell_mean((slices - truth).abs().square().mean(0))
    power = band.shell_mean(truth.abs().square().mean(0))
    # Further out the sampling of the phantom itself, not its projection, limits the agreement.
    assert (error / power)[1:27].max() < 2e-4


def test_the_error_falls_with_the_order(generator: torch.Generator) -> None:
    phantom = GaussianPhantom.random(40, 60.0, generator, sigma=5.0)
    rotations = random_rotations(5, generator)
    band = Band.to_nyquist(64)
    truth = band.from_images(phantom.project(rotations, torch.zeros(5, 2), 64, 3.0)).to(torch.complex64)
    volume = phantom.volume(64, 3.0)
    losses = [loss(SeriesProjector(volume, order).project(rotations, band), truth) for order in (1, 2, 3)]
    assert losses[0] > 5 * losses[1] > 25 * losses[2]


def test_frequency_matrices_take_images_of_another_pixel_size(generator: torch.Generator) -> None:
    box, voxel, pixel = 64, 3.0, 2.85
    phantom = GaussianPhantom.random(40, 55.0, generator, sigma=5.0)
    rotations = random_rotations(4, generator)
    band = Band.to_nyquist(box)
    truth = band.from_images(phantom.project(rotations, torch.zeros(4, 2), box, pixel))
    matrix = torch.eye(2).expand(4, 2, 2) * (voxel / pixel)
    slices = SeriesProjector(phantom.volume(box, voxel)).project(rotations, band, matrix)
    assert loss(slices, truth.to(slices)) < 1e-4
    beyond = band.radius * (voxel / pixel) > band.limit
    assert beyond.any()
    assert (slices[:, beyond] == 0).all()


def test_the_total_is_the_mass(generator: torch.Generator) -> None:
    phantom = GaussianPhantom.random(20, 60.0, generator, sigma=5.0)
    projector = SeriesProjector(phantom.volume(64, 3.0))
    assert projector.total * 27.0 == pytest.approx(float(phantom.masses.sum()), rel=1e-4)


def test_table_bytes_forecasts_the_memory(generator: torch.Generator) -> None:
    projector = SeriesProjector(GaussianPhantom.random(5, 40.0, generator).volume(48, 4.0))
    actual = projector._coefficients.numel() * 4
    assert actual == pytest.approx(SeriesProjector.table_bytes(48), rel=0.1)


def test_it_is_not_the_interpolation_of_the_reconstruction(generator: torch.Generator) -> None:
    """Both are near the truth, with errors that have nothing to do with each other."""
    box = 64
    phantom = GaussianPhantom.random(40, 0.36 * box * 3.0, generator, sigma=4.0)
    rotations = random_rotations(6, generator)
    band = Band(box, 30)
    truth = band.from_images(phantom.project(rotations, torch.zeros(6, 2), box, 3.0)).to(torch.complex64) / 3.0
    volume = phantom.volume(box, 3.0)
    grid = SliceGrid(box, band.limit)
    trilinear = grid.extract(as_table(grid.forward(volume.data)), grid.points(rotations.float(), band))[..., 0]
    series = SeriesProjector(volume).project(rotations, band)
    first, second = trilinear - truth, series - truth
    correlation = (first * second.conj()).real.sum() / (first.norm() * second.norm())
    assert abs(float(correlation)) < 0.3
    assert second.norm() < first.norm()


@pytest.mark.data
def test_projections_of_a_real_structure_are_sums_over_its_atoms(shared_data, generator: torch.Generator) -> None:
    """The transform of the model, term by term from its atoms and their form factors, on the plane of each view."""
    box, pixel = 96, 1.6
    atoms = read_atoms(shared_data / "structures" / "3bep.cif.gz")
    rotations = random_rotations(3, generator)
    band = Band.to_nyquist(box)
    slices = SeriesProjector(density_from_atoms(atoms, box, pixel)).project(rotations, band)
    s2 = (band.radius / (box * pixel)).square()
    centred = atoms.coordinates - atoms.centre_of_mass
    positions = (rotations @ centred.T)[:, :2].mT
    truth = torch.zeros(3, len(band), dtype=torch.complex128)
    for number in atoms.elements.unique().tolist():
        factor = gemmi.Element(number).c4322
        form = torch.tensor([factor.calculate_sf(float(value) / 4) for value in s2], dtype=torch.float64)
        mine = torch.nonzero(atoms.elements == number)[:, 0]
        for part in mine.split(500):
            angle = (-2 * math.pi / pixel) * (positions[:, part] @ band.frequency.T)
            weight = atoms.occupancies[part, None] * torch.exp(-atoms.b_factors[part, None] * s2 / 4)
            truth += form * torch.polar(weight.expand_as(angle), angle).sum(1)
    assert loss(slices, truth.to(slices)) < 1e-3
    for limit in (16, 32):
        inner = len(band.prefix(limit))
        assert loss(slices[:, :inner], truth[:, :inner].to(slices)) < 2e-4
