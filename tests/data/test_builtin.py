"""The molecule of the demonstration."""

import torch
from torch import Tensor

from hoarfrost.data.builtin import builtin_complex
from hoarfrost.data.density import density_from_atoms, extent
from hoarfrost.data.projector import SeriesProjector
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import geodesic_distance, random_rotations, rotation_vector_to_matrix
from hoarfrost.types import Volume


def test_it_is_the_same_every_time_and_another_for_another_seed() -> None:
    first = builtin_complex()
    assert torch.equal(first.coordinates, builtin_complex().coordinates)
    assert not torch.equal(first.coordinates, builtin_complex(6).coordinates)


def test_it_has_the_size_and_packing_of_a_protein() -> None:
    atoms = builtin_complex()
    assert 150e3 < 13.3 * len(atoms) < 250e3
    assert 70 < extent(atoms) < 100
    assert atoms.centre_of_mass.abs().max() < 1e-9
    sample = atoms.coordinates[::40]
    around = torch.cdist(sample, atoms.coordinates)
    # Heavy atoms of proteins: about 70 within 7 Å (0.05 an Å^3 in the core), and never on top of each other.
    assert 25 < (around < 7.0).sum(-1).double().median() < 110
    assert (around.kthvalue(2, dim=-1).values > 0.4).double().mean() > 0.97


def test_no_rotation_or_mirror_takes_it_to_itself(generator: torch.Generator) -> None:
    """From 50 to 20 Å the map resembles no other orientation of itself, of either hand, as a symmetric one would."""
    volume = density_from_atoms(builtin_complex(), 32, 6.4, b_factor=900.0)
    mirrored = Volume(volume.data.flip(0).roll(1, 0), volume.voxel_size)
    # Two planes at a right angle pin the orientation of a map.
    planes = torch.stack([torch.eye(3), torch.eye(3)[[1, 2, 0]]]).double()
    band = Band(32, 10)
    detail = slice(len(band.prefix(3)), None)

    def views(of: Volume, turns: Tensor) -> Tensor:
        projector = SeriesProjector(of)
        both = torch.cat([projector.project(plane @ turns, band)[:, detail] for plane in planes], dim=-1)
        return both / both.norm(dim=-1, keepdim=True)

    def resemblance(of: Volume, turns: Tensor) -> float:
        reference = views(volume, torch.eye(3)[None].double())
        return float((views(of, turns) * reference.conj()).real.sum(-1).max())

    turns = random_rotations(3000, generator)
    elsewhere = turns[geodesic_distance(turns, torch.eye(3)[None].double()) > 1.0]
    slightly = rotation_vector_to_matrix(torch.tensor([[0.05, -0.05, 0.05]]).double())
    assert resemblance(volume, slightly) > 0.9
    assert resemblance(volume, elsewhere) < 0.7
    assert resemblance(mirrored, turns) < 0.7
