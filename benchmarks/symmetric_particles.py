"""Symmetric particles put together from copies of one part."""

from __future__ import annotations

from collections.abc import Callable

import torch

from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.geometry.symmetry import point_group
from hoarfrost.io.atoms import Atoms

CONTACT = 3.0  # Å between the copies


def symmetric_copies(part: Atoms, name: str) -> Atoms:
    """Copies of a part about the axes of a point group, as near as they fit."""
    group = point_group(name)
    turn = random_rotations(1, torch.Generator().manual_seed(4))[0]
    centred = (part.coordinates - part.centre_of_mass) @ turn.T
    direction = torch.tensor([0.85, 0.2, 0.0 if name.startswith("C") else 0.48], dtype=torch.float64)
    distance = _nearest_distance(lambda d: group @ (centred[::10] + d * direction).T)
    copies = (group @ (centred + distance * direction).T).mT.flatten(0, 1)
    return Atoms(
        coordinates=copies,
        elements=part.elements.repeat(len(group)),
        b_factors=part.b_factors.repeat(len(group)),
        occupancies=part.occupancies.repeat(len(group)),
        name=name,
    )


def _nearest_distance(copies: Callable[[float], torch.Tensor]) -> float:
    """The smallest distance from the centre, in steps of 2 Å, at which the first copy touches no other."""
    distance = 0.0
    while True:
        first, *others = copies(distance).mT
        if min(float(torch.cdist(first, other).min()) for other in others) > CONTACT:
            return distance
        distance += 2.0
