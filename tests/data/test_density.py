"""Densities of atomic models against sums of form factors, and maps on other grids against phantoms."""

import math

import gemmi
import pytest
import torch
from torch import Tensor

from hoarfrost.data.density import density_from_atoms, extent, fitting_pixel_size, resample_map
from hoarfrost.errors import InputError
from hoarfrost.fourier.transforms import fourier_transform_3d
from hoarfrost.io.atoms import Atoms
from hoarfrost.types import Volume
from phantoms import GaussianPhantom


def few_atoms() -> Atoms:
    return Atoms(
        coordinates=torch.tensor([[4.0, -7.0, 11.0], [-9.5, 3.0, 0.5], [6.0, 14.0, -5.0], [0.3, 0.2, 9.0]]).double(),
        elements=torch.tensor([6, 8, 16, 15]),
        b_factors=torch.tensor([5.0, 60.0, 25.0, 110.0]).double(),
        occupancies=torch.tensor([1.0, 0.5, 1.0, 0.8]).double(),
        name="few",
    )


def structure_factors(atoms: Atoms, box: int, voxel_size: float, b_factors: Tensor) -> Tensor:
    """The transform of the atoms at every frequency (z, y, x) of the box, atom by atom."""
    axis = (torch.arange(box, dtype=torch.float64) - box // 2) / (box * voxel_size)
    square = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
    total = torch.zeros(box, box, box, dtype=torch.complex128)
    for position, number, b, occupancy in zip(
        atoms.coordinates, atoms.elements.tolist(), b_factors, atoms.occupancies, strict=True
    ):
        c = gemmi.Element(number).c4322
        form = sum(a * torch.exp(-width * square / 4) for a, width in zip(c.a, c.b, strict=True))
        x, y, z = position
        phase = axis[:, None, None] * z + axis[:, None] * y + axis * x
        total += occupancy * form * torch.exp(-b * square / 4) * torch.exp(-2j * math.pi * phase)
    return total


@pytest.mark.parametrize("box", [32, 33])
@pytest.mark.parametrize("b_factor", [None, 40.0])
def test_the_density_is_the_sum_of_form_factors(box: int, b_factor: float | None) -> None:
    atoms, voxel = few_atoms(), 1.7
    density = density_from_atoms(atoms, box, voxel, b_factor=b_factor, centre=False)
    used = atoms.b_factors if b_factor is None else torch.full_like(atoms.b_factors, b_factor)
    # A sampled density has the transform of the continuous one, divided by the voxel's volume.
    truth = structure_factors(atoms, box, voxel, used) / voxel**3
    spectrum = fourier_transform_3d(density.data.double()) * box**1.5
    inside = slice(1, None)  # an even box has no partner for its first row
    error = (spectrum - truth)[inside, inside, inside]
    assert error.norm() < 2e-3 * truth[inside, inside, inside].norm()
    assert error.abs().max() < 3e-3 * truth.abs().max()


def test_axes_are_z_y_x() -> None:
    atoms = Atoms(
        torch.tensor([[3.0, -6.0, 9.0]]).double(), torch.tensor([6]), torch.tensor([50.0]).double(),
        torch.ones(1).double(),
    )  # fmt: skip
    density = density_from_atoms(atoms, 24, 1.5, centre=False).data
    z, y, x = torch.unravel_index(density.argmax(), density.shape)
    assert (int(z), int(y), int(x)) == (12 + 6, 12 - 4, 12 + 2)


def test_the_centre_of_mass_comes_to_the_origin() -> None:
    atoms = few_atoms()
    density = density_from_atoms(atoms, 32, 1.7)
    moved = density_from_atoms(atoms.moved(-atoms.centre_of_mass), 32, 1.7, centre=False)
    torch.testing.assert_close(density.data, moved.data)
    weights = torch.tensor([12.011, 0.5 * 15.999, 32.06, 0.8 * 30.974]).double()
    expected = (weights[:, None] * atoms.coordinates).sum(0) / weights.sum()
    torch.testing.assert_close(atoms.centre_of_mass, expected, atol=1e-3, rtol=0)


def test_a_model_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        density_from_atoms(few_atoms(), 16, 1.5, centre=False)
    assert str(caught.value) == (
        "few: reaches 14 Å from the centre, but a box of 16 pixels of 1.5 Å ends at 12 Å; take a larger --box or --apix"
    )


@pytest.mark.parametrize(("old_box", "old_voxel", "box", "voxel"), [(80, 1.9, 48, 3.1), (41, 3.7, 64, 2.3)])
def test_maps_are_resampled_about_their_origin(
    old_box: int, old_voxel: float, box: int, voxel: float, generator: torch.Generator
) -> None:
    phantom = GaussianPhantom.random(15, 35.0, generator, sigma=6.0)
    resampled = resample_map(phantom.volume(old_box, old_voxel), box, voxel)
    truth = phantom.volume(box, voxel)
    assert resampled.voxel_size == voxel
    assert (resampled.data - truth.data).abs().max() < 2e-3 * truth.data.max()


def test_resampling_takes_maps_that_are_no_cubes(generator: torch.Generator) -> None:
    phantom = GaussianPhantom.random(15, 30.0, generator, sigma=6.0)
    whole = phantom.volume(64, 2.5)
    part = Volume(whole.data[4:60, 6:58, :], 2.5)  # still centred on voxel floor(D/2) of every axis
    resampled = resample_map(part, 48, 3.0)
    truth = phantom.volume(48, 3.0)
    assert (resampled.data - truth.data).abs().max() < 3e-3 * truth.data.max()


def test_resampling_to_the_same_grid_changes_nothing(generator: torch.Generator) -> None:
    volume = GaussianPhantom.random(15, 30.0, generator, sigma=6.0).volume(49, 2.5)
    torch.testing.assert_close(resample_map(volume, 49, 2.5).data, volume.data, atol=1e-7, rtol=1e-4)


def test_pixel_sizes_fit_the_molecule() -> None:
    atoms = few_atoms()
    pixel = fitting_pixel_size(atoms, 16)
    assert 0.6 * 16 * pixel < 2 * extent(atoms) <= 2 / 3 * 16 * pixel
    assert fitting_pixel_size(atoms, 512) == 1.0
    assert fitting_pixel_size(Volume(torch.zeros(40, 50, 60), 2.0), 100) == pytest.approx(1.2)
