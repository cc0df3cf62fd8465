"""The few poses that an image may have: which of them are one."""

import math

import torch

from hoarfrost.geometry.rotations import random_rotations, rotation_vector_to_matrix
from hoarfrost.geometry.symmetry import point_group
from hoarfrost.reconstruct.soft_assignment import LEAST_WEIGHT, Modes, distinct


def turned(pose, degrees):
    vector = torch.tensor([math.radians(degrees), 0.0, 0.0], dtype=torch.float64)
    return pose @ rotation_vector_to_matrix(vector[None])[0]


def modes(rotations, weights):
    count = len(weights)
    shifts = torch.arange(2.0 * count).reshape(1, count, 2).double()
    return Modes(torch.stack(rotations)[None], shifts, torch.tensor([weights]))


def test_a_mode_joins_the_likelier_one_beside_it(generator):
    pose, far = random_rotations(2, generator)
    found = distinct(modes([turned(pose, 4), far, pose], [0.2, 0.3, 0.5]), math.radians(5), "C1")
    torch.testing.assert_close(found.weight, torch.tensor([[0.7, 0.3, 0.0]]))
    torch.testing.assert_close(found.rotations[0, 0], pose)
    torch.testing.assert_close(found.shifts[0, 0], torch.tensor([4.0, 5.0]).double())


def test_equivalent_poses_are_one(generator):
    pose, other = random_rotations(2, generator)
    mates = [turned(pose @ operator, i) for i, operator in enumerate(point_group("C3"))]
    every = modes([*mates, other], [0.4, 0.2, 0.1, 0.3])
    torch.testing.assert_close(distinct(every, math.radians(5), "C3").weight, torch.tensor([[0.7, 0.3, 0.0, 0.0]]))
    apart = distinct(every, math.radians(5), "C1").weight
    torch.testing.assert_close(apart, torch.tensor([[0.4, 0.3, 0.2, 0.1]]))


def test_faint_modes_vanish(generator):
    first, second = random_rotations(2, generator)
    found = distinct(modes([first, second], [1 - 0.5 * LEAST_WEIGHT, 0.5 * LEAST_WEIGHT]), 0.1, "C1")
    torch.testing.assert_close(found.weight, torch.tensor([[1.0, 0.0]]))
