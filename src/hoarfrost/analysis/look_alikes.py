"""Turns after which a map looks nearly as before: the pseudo-symmetry of a particle.

An image of such a particle fits one orientation nearly as well as another, and which one is right shows only in what
breaks the symmetry. A search on a grid may miss the other one; from here its place is known.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.analysis.alignment import GlobalAlignment
from hoarfrost.analysis.map_alignment import SEARCH_LIMIT, MapAlignment, align_maps
from hoarfrost.analysis.map_pair import MapPair
from hoarfrost.geometry.so3_grid import OrientationGrid
from hoarfrost.geometry.symmetry import symmetric_distance
from hoarfrost.kernels.threads import map_parts
from hoarfrost.physics.masks import soft_sphere
from hoarfrost.types import Volume

ALIKE = 0.75
"""Mean correlation of the shells to the eighth of a map and its turned self from which they look alike.

A spike with one of three arms up reaches 0.91, particles without any pseudo-symmetry 0.55 to 0.73.
"""

_COARSE_LIMIT, _COARSE_ALIKE = 6, 0.65
"""Shells of the search, and what is promising there: its grid is coarse."""

_MOST = 4


def look_alikes(volume: Volume, symmetry: str = "C1", *, away: float = 0.45) -> list[MapAlignment]:
    """The turns, and the shifts that go with them, after which a map looks nearly as before; the most alike first.

    Parameters
    ----------
    volume : Volume
        A cubic map, its particle roughly centred.
    symmetry : str
        Point group that the map has by right: its turns are not counted.
    away : float
        Radians from those turns, and from each other, that turns are at least.

    Returns
    -------
    list of MapAlignment
        ``x -> rotation @ x + shift`` for each; none for most particles, at most four.

    Raises
    ------
    InputError
        If the map is constant, or there is no such group.
    """
    ball = soft_sphere(volume.box, 0.45 * volume.box, 0.05 * volume.box).to(volume.data)
    pair = MapPair.of(volume.data * ball, volume.data * ball, SEARCH_LIMIT)
    turns = OrientationGrid(2).rotations()
    turns = turns[_distance(turns, torch.eye(3), symmetry) > away]
    _, agreement = pair.best_shifts(turns, min(_COARSE_LIMIT, pair.limit))
    agreement = agreement.masked_fill(agreement < _COARSE_ALIKE, 0.0)
    promising: list[Tensor] = []
    while bool(agreement.any()) and len(promising) < _MOST:
        promising.append(turns[agreement.argmax()])
        agreement = agreement.masked_fill(_distance(turns, promising[-1], symmetry) < away, 0.0)

    def refined(turn: Tensor) -> MapAlignment:
        return align_maps(volume, volume, hands=False, start=GlobalAlignment(turn, False, 1.0))

    found: list[tuple[float, MapAlignment]] = []
    for placed in map_parts(refined, promising, volume.data.device):
        known = torch.stack([torch.eye(3), *(other.rotation.float() for _, other in found)])
        alike = _agreement(pair, placed, volume)
        if alike > ALIKE and float(_distance(known, placed.rotation, symmetry).min()) > away:
            found.append((alike, placed))
    return [placed for _, placed in sorted(found, key=lambda one: one[0], reverse=True)]


def _agreement(pair: MapPair, placed: MapAlignment, volume: Volume) -> float:
    """Mean correlation of the lowest shells of the map with itself, so placed."""
    shift = placed.shift * (pair.box / (volume.box * volume.voxel_size))
    values, _ = pair.moved(placed.rotation[None], shift[None], len(pair.k))
    return float(pair.shell_correlation(values).mean())


def _distance(turns: Float[Tensor, "n 3 3"], turn: Float[Tensor, "3 3"], symmetry: str) -> Float[Tensor, "n"]:
    return symmetric_distance(turns.double(), turn.double().expand_as(turns), symmetry)
