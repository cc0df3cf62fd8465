"""The network as a density: conjugate halves, slices that its map has as well, gradients; how it is trained on sums."""

import dataclasses

import pytest
import torch

from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.geometry.rotations import random_rotations, rotation_vector_to_matrix
from hoarfrost.reconstruct.backprojection import FoldedSums, node_shells
from hoarfrost.reconstruct.fits import DensityFit, FitSetting
from hoarfrost.reconstruct.neural_fit import NeuralFit, nodes_of, signal_spectrum, ungridded
from hoarfrost.representations.neural import NeuralField
from hoarfrost.representations.voxel import FourierVolume
from phantoms import GaussianPhantom

BOX, PIXEL, LIMIT = 24, 4.0, 9


@pytest.fixture
def phantom(generator):
    return GaussianPhantom.random(8, 20.0, generator, sigma=6.0)


@pytest.fixture
def network(generator):
    field = NeuralField.random(
        generator,
        torch.linspace(2, 1, LIMIT + 1),
        box=BOX,
        voxel_size=PIXEL,
        radius=25.0,
        points=16,
        width=16,
        layers=2,
    )
    out = torch.randn(2, 16, generator=generator)
    return dataclasses.replace(field, parameters={**field.parameters, "out": out})


def sums_of(phantom, generator, noise=0.0):
    """What endless views of a phantom leave at the nodes, with some noise."""
    grid = SliceGrid(BOX, LIMIT)
    volume = phantom.volume(BOX, PIXEL).data
    values = grid.forward(volume * grid.gridding_kernel(volume) ** 2)
    values = values / values.abs().max() * 100
    weight = 0.5 + torch.rand(grid.shape, generator=generator)
    values = values + noise * torch.randn(grid.shape, generator=generator, dtype=torch.complex64) / weight.sqrt()
    shells = node_shells(grid)
    weight = torch.where(shells <= LIMIT, weight, 0)
    return FoldedSums(grid, values * weight, weight)


def test_opposite_frequencies_are_conjugates_and_nothing_lies_beyond_the_limit(network, generator):
    points = 4 * torch.randn(40, 3, generator=generator)
    torch.testing.assert_close(network.at(-points), network.at(points).conj())
    assert network.at(points * (LIMIT + 1) / points.norm(dim=1, keepdim=True)).abs().max() == 0


@pytest.mark.parametrize("box", [BOX, 20])
def test_the_map_has_the_networks_slices(network, generator, box):
    """Those of a map cut at the box, which the waves of points deep inside hardly notice."""
    band, rotations = Band(BOX, 6), random_rotations(4, generator).float()
    volume = network.to_volume(box)
    assert volume.box == box
    assert volume.voxel_size == pytest.approx(PIXEL * BOX / box)
    slices = FourierVolume.from_volume(volume, 6).project(rotations, Band(box, 6)) * (BOX / box) ** 2
    expected = network.project(rotations, band)
    middle = slice(0, len(Band(BOX, 5)))
    error = (slices - expected)[:, middle].norm() / expected[:, middle].norm()
    assert error < 0.25
    assert (slices[:, middle] * expected[:, middle].conj()).real.sum() / expected[:, middle].abs().square().sum() == (
        pytest.approx(1.0, abs=0.1)
    )


def test_slices_follow_rotation_and_parameters(network, generator):
    """Finite differences in float64."""
    given = {name: value.double() for name, value in network.parameters.items()}
    band, rotation = Band(BOX, 4), random_rotations(1, generator)
    target = torch.randn(1, len(band), generator=generator, dtype=torch.complex128)

    def error(vector, out):
        field = NeuralField({**given, "out": out}, network.spectrum.double(), BOX, PIXEL)
        return (field.project(rotation @ rotation_vector_to_matrix(vector[None]), band) - target).abs().square().sum()

    vector = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(error, (vector, given["out"].requires_grad_()), eps=1e-6, atol=1e-3)


def test_second_differences_take_the_gridding_out(phantom):
    grid = SliceGrid(BOX, LIMIT)
    volume = phantom.volume(BOX, PIXEL).data
    kernel = grid.gridding_kernel(volume)
    plain, gridded = grid.forward(volume * kernel), grid.forward(volume * kernel**2)
    inside = node_shells(grid) <= LIMIT
    found = ungridded(gridded, torch.ones(grid.shape, dtype=torch.bool))
    before, after = ((one - plain)[inside].norm() / plain[inside].norm() for one in (gridded, found))
    assert before > 0.01
    assert after < 0.1 * before


def test_nodes_that_no_image_reached_do_not_count(phantom, generator):
    sums = sums_of(phantom, generator)
    expected = signal_spectrum(sums, torch.ones(LIMIT + 1))
    stray = torch.rand(sums.weight.shape, generator=generator) < 0.02
    weight = torch.where(stray, 1e-8, sums.weight)
    data = torch.where(stray, 1e-4, sums.data)  # noise of variance W: a value of 10,000
    found = signal_spectrum(FoldedSums(sums.grid, data, weight), torch.ones(LIMIT + 1))
    torch.testing.assert_close(found, expected, rtol=0.15, atol=0)


def test_nodes_are_sorted_and_in_terms_of_the_spectrum(phantom, generator):
    sums = sums_of(phantom, generator)
    spectrum = signal_spectrum(sums, torch.ones(LIMIT + 1))
    nodes = nodes_of(sums, spectrum)
    assert (nodes.radius.diff() >= 0).all()
    assert nodes.radius[-1] <= LIMIT + 0.5
    assert 0.5 < nodes.values.square().sum(-1).mean() < 2
    torch.testing.assert_close(nodes.weight.double().sum(), nodes.drawn[-1])


def test_training_finds_the_phantom_and_steps_can_be_repeated(phantom, generator):
    sums = sums_of(phantom, generator, noise=0.3)
    setting = FitSetting(BOX, PIXEL, 30.0, 5, torch.ones(LIMIT + 1))
    fit = NeuralFit(iterations=150, batch=512, points=32, width=32, layers=2, at_once=50)
    assert isinstance(fit, DensityFit)
    assert fit.steps == 3
    states = [fit.begin(sums, setting, None)]
    for step in range(fit.steps):
        state, values = fit.run(sums, setting, states[-1], step)
        states.append(state)
    assert values["loss"] < 0.1
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    again, _ = fit.run(sums, setting, {name: value.clone() for name, value in states[1].items()}, 1)
    torch.set_num_threads(threads)
    for name, value in states[2].items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=0)

    found, truth = fit.half_map(sums, setting, states[-1]).data, phantom.volume(BOX, PIXEL).data
    found, truth = found - found.mean(), truth - truth.mean()
    assert (found * truth).sum() / (found.norm() * truth.norm()) > 0.95
    joined = fit.joined()
    further = joined.begin(sums, setting, states[-1])
    torch.testing.assert_close(further["parameter.out"], states[-1]["average.out"])
    assert not further["marching"]
