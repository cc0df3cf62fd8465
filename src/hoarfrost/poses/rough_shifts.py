"""Where particles roughly sit, so that a search of all orientations need try only the shifts nearby.

In its lowest shells a particle is a blob whose place hardly depends on its orientation: a few hundred orientations
tell the shift to a step of the grid, at a twentieth of the cost of searching all of them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.data.dataset import BandImages
from hoarfrost.geometry.so3_grid import OrientationGrid
from hoarfrost.poses.search import ExhaustiveSearch, search_bank
from hoarfrost.representations.base import Density

GRID = OrientationGrid(1)
"""Orientations tried: 30 degrees apart."""

LIMIT = 8
"""Shells compared."""

REACH = 2
"""Steps of the grid within which the best shift is sought afterwards."""


def rough_shifts(
    images: BandImages,
    density: Density,
    shifts: Float[Tensor, "t 2"],
    weight: Float[Tensor, "m"],
    frame: Float[Tensor, "3 3"] | None = None,
) -> Float[Tensor, "b 2"]:
    """The best of these shifts (pixels) for every image, over few orientations in the lowest shells.

    ``weight`` is the inverse noise variance on the images' band; ``frame`` turns the grid of orientations.
    """
    low = images.prefix(LIMIT)
    weight = weight[: len(low.band)]
    bank = ExhaustiveSearch(GRID, shifts, weight, 1, frame).bank(density, low.band)
    return shifts[search_bank(low, bank, shifts, weight, 1).shift[:, 0]]


def nearby(shifts: Float[Tensor, "t 2"]) -> Float[Tensor, "s 2"]:
    """The shifts of a square grid within :data:`REACH` steps of no shift: 13 of 45, or all of a small grid."""
    apart = torch.linalg.vector_norm(shifts[1:] - shifts[:1], dim=-1)
    reach = (REACH + 0.01) * apart.min() if len(apart) else 0.0
    return shifts[torch.linalg.vector_norm(shifts, dim=-1) <= reach]
