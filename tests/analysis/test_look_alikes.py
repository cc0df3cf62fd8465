"""Turns after which a phantom looks as before: those of a symmetry that was not given, and no others."""

import torch

from hoarfrost.analysis.look_alikes import look_alikes
from hoarfrost.geometry.rotations import geodesic_distance
from hoarfrost.geometry.symmetry import point_group
from phantoms import GaussianPhantom

BOX, VOXEL_SIZE = 36, 4.0


def threefold(generator, extra):
    """Three equal parts about an axis along z that misses the origin, and something else."""
    part = GaussianPhantom.random(6, 40.0, generator, sigma=5.0)
    centres = torch.einsum("gij,aj->gai", point_group("C3"), part.centres).flatten(0, 1)
    blob = torch.tensor([[30.0, 0.0, 12.0]], dtype=centres.dtype)
    return GaussianPhantom(
        torch.cat([centres, blob]) + torch.tensor([5.0, -3.0, 2.0], dtype=centres.dtype),
        torch.cat([part.sigmas.repeat(3), part.sigmas[:1]]),
        torch.cat([part.masses.repeat(3), extra * part.masses[:1]]),
    )


def test_both_turns_of_a_pseudo_threefold_are_found(generator):
    phantom = threefold(generator, extra=1.0)
    found = look_alikes(phantom.volume(BOX, VOXEL_SIZE))
    assert len(found) == 2
    # The blob that breaks the symmetry pulls the turns off the axis a little.
    expected = point_group("C3")[1:]
    apart = geodesic_distance(torch.stack([one.rotation.double() for one in found])[:, None], expected[None])
    assert float(apart.min(1).values.rad2deg().max()) < 3.0
    assert int(apart.argmin(1).sum()) == 1
    centre = torch.tensor([5.0, -3.0, 2.0], dtype=torch.float64)
    for one in found:
        moved = one.rotation.double() @ centre + one.shift.double()
        assert float((moved - centre).norm()) < 2.0


def test_turns_of_the_map_s_own_group_do_not_count(generator):
    assert len(look_alikes(threefold(generator, extra=0.0).volume(BOX, VOXEL_SIZE), "C3")) == 0


def test_a_particle_without_symmetry_looks_like_nothing_but_itself(generator):
    assert look_alikes(GaussianPhantom.random(12, 50.0, generator, sigma=5.0).volume(BOX, VOXEL_SIZE)) == []
