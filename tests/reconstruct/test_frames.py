"""Halves that have drifted apart are laid over each other, and only as far as symmetry lets them."""

from __future__ import annotations

import math

import pytest
import torch

from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.geometry.rotations import geodesic_distance, random_rotations, rotation_vector_to_matrix
from hoarfrost.reconstruct.backprojection import BackProjection
from hoarfrost.reconstruct.frames import Motion, motion_between
from phantoms import GaussianPhantom

BOX, PIXEL, LIMIT = 40, 3.0, 12


def sums_of(phantom, rotations, shifts, poses, generator):
    """Sums of noisy images, made at (rotations, shifts) and inserted at other poses."""
    band = Band(BOX, LIMIT)
    vectors = band.from_images(phantom.project(rotations, shifts * PIXEL, BOX, PIXEL))
    noise = torch.view_as_complex(torch.randn(*vectors.shape, 2, generator=generator))
    images = BandImages(
        band, (vectors + 0.3 * vectors.abs().mean() * noise).to(torch.complex64), torch.ones(vectors.shape)
    )
    sums = BackProjection.empty(SliceGrid(BOX, LIMIT))
    sums.add(images, *poses)
    return sums


@pytest.mark.parametrize(
    ("turn", "shift"), [((0.02, -0.03, 0.015), (1.2, -0.6, 0.9)), ((0.004, 0.0, -0.006), (0.0, 0.1, 0.0))]
)
def test_a_drift_of_one_half_is_found_and_undone(turn, shift, generator):
    phantom = GaussianPhantom.random(25, 32.0, generator, sigma=5.0)
    drift = Motion(rotation_vector_to_matrix(torch.tensor(turn).double()), torch.tensor(shift).double())
    halves, poses = [], []
    for number in range(2):
        rotations, shifts = random_rotations(400, generator), torch.zeros(400, 2, dtype=torch.float64)
        placed = (rotations, shifts) if number == 0 else drift.apply(rotations, shifts, PIXEL)
        halves.append(sums_of(phantom, rotations, shifts, placed, generator))
        poses.append((rotations, shifts, placed))

    found = motion_between(*halves, extent=BOX * PIXEL, radius=50.0, symmetry="C1")

    assert found is not None
    rotations, shifts, placed = poses[1]
    back = found.apply(*placed, PIXEL)
    assert torch.rad2deg(geodesic_distance(back[0], rotations)).max() < 0.15
    assert (back[1] - shifts).abs().max() < 0.05


def test_halves_in_one_frame_stay_there(generator):
    phantom = GaussianPhantom.random(25, 32.0, generator, sigma=5.0)
    rotations, shifts = random_rotations(300, generator), torch.zeros(300, 2, dtype=torch.float64)
    same = sums_of(phantom, rotations, shifts, (rotations, shifts), generator)
    found = motion_between(same, same, extent=BOX * PIXEL, radius=50.0, symmetry="C1")
    assert found is None or (found.angle < 1e-3 and found.shift.abs().max() < 0.05)


@pytest.mark.parametrize(("symmetry", "turn", "shift"), [("C3", 0.03, 2.0), ("D2", 0.0, 0.0), ("O", 0.0, 0.0)])
def test_axes_stay_where_they_stand(symmetry, turn, shift):
    motion = Motion(
        rotation_vector_to_matrix(torch.tensor([0.02, 0.01, 0.03]).double()), torch.tensor([3.0, -1.0, 2.0])
    )
    kept = motion.kept_by(symmetry)
    assert kept.angle == pytest.approx(turn, abs=1e-9)
    torch.testing.assert_close(kept.shift, torch.tensor([0.0, 0.0, shift]))
    cosine, sine = math.cos(turn), math.sin(turn)
    expected = torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(kept.rotation, expected)
