"""The molecule of the demonstration."""

import torch

from hoarfrost.data.builtin import builtin_complex
from hoarfrost.data.density import density_from_atoms, extent
from hoarfrost.data.projector import SeriesProjector
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import random_rotations


def test_it_is_the_same_every_time_and_another_for_another_seed() -> None:
    first = builtin_complex()
    assert torch.equal(first.coordinates, builtin_complex().coordinates)
    assert not torch.equal(first.coordinates, builtin_complex(6).coordinates)


def test_it_has_the_size_and_packing_of_a_protein() -> None:
    atoms = builtin_complex()
    assert 150e3 < 13.3 * len(atoms) < 250e3
    assert 70 < extent(atoms) < 100
    assert atoms.centre_of_mass.abs().max() < 1e-9
    sample = atoms.coordinates[::10]
    around = torch.cdist(sample, atoms.coordinates)
    # Heavy atoms of proteins: about 70 within 7 Å (0.05 an Å^3 in the core), and never on top of each other.
    assert 25 < (around < 7.0).sum(-1).double().median() < 110
    assert (around.kthvalue(2, dim=-1).values > 0.4).double().mean() > 0.97


def test_no_rotation_or_mirror_takes_it_to_itself(generator: torch.Generator) -> None:
    """At 14 Å the map correlates with no other orientation of itself, of either hand, as a symmetric one would."""
    box = 40
    volume = density_from_atoms(builtin_complex(), box, 5.1, b_factor=300.0)
    projector, band = SeriesProjector(volume), Band(box, 15)
    mirrored = SeriesProjector(type(volume)(volume.data.flip(0).roll(1, 0), volume.voxel_size))
    planes = torch.stack([torch.eye(3), torch.eye(3)[[1, 2, 0]]]).double()
    turns = random_rotations(6000, generator)
    # Two orthogonal planes pin the orientation of a map.
    reference = torch.cat(list(projector.project(planes, band)))

    def best(other: SeriesProjector, apart: torch.Tensor) -> float:
        values = torch.cat([other.project(planes[i] @ turns[apart], band) for i in (0, 1)], dim=-1)
        products = (values * reference.conj()).real.sum(-1)
        return float((products / (values.norm(dim=-1) * reference.norm())).max())

    angle = ((turns.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1).acos()
    print(best(projector, angle < 0.35) , best(projector, angle > 1.0) , best(mirrored, angle >= 0))
    assert best(projector, angle < 0.35) > 0.8
    assert best(projector, angle > 1.0) < 0.7
    assert best(mirrored, angle >= 0) < 0.7
