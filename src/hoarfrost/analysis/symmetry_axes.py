"""The axes of a point group in a map that was found without knowing them.

If a map has the group, there is a rotation ``Q`` and a centre ``c`` such that it looks the same after every turn
``Q^T g Q`` about ``c``. The generators are tried in every orientation of a grid, all shifts at once; the best is made
exact by laying the map over itself near each turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from hoarfrost.analysis.alignment import GlobalAlignment
from hoarfrost.analysis.map_alignment import SEARCH_LIMIT, align_maps
from hoarfrost.analysis.map_pair import MapPair
from hoarfrost.geometry.rotations import matrix_to_rotation_vector, nearest_rotation
from hoarfrost.geometry.so3_grid import OrientationGrid
from hoarfrost.geometry.symmetry import generators
from hoarfrost.physics.masks import soft_sphere
from hoarfrost.types import Volume

_COARSE_LIMIT = 6
"""Shells of the first search; a turn is twice as wrong as its axis, so that they are fewer than in an alignment."""

_CANDIDATES = 96


@dataclass(frozen=True)
class SymmetryAxes:
    """Where a group's axes lie: ``x_standard = rotation @ (x - centre)``, with the group as RELION orients it.

    ``agreement`` is the mean Fourier shell correlation of the map with its turned copies, over the lowest shells.
    """

    rotation: Float[Tensor, "3 3"]
    centre: Float[Tensor, "3"]  # Å; along a single axis, the point nearest to the map's origin
    agreement: float


def find_symmetry_axes(volume: Volume, symmetry: str) -> SymmetryAxes:
    """The orientation and centre in which a map best shows a point group.

    Parameters
    ----------
    volume : Volume
        A cubic map, its particle roughly centred.
    symmetry : str
        Point group other than C1.

    Raises
    ------
    InputError
        If the map is constant, or there is no such group.
    """
    turns = generators(symmetry)
    ball = soft_sphere(volume.box, 0.45 * volume.box, 0.05 * volume.box).to(volume.data)
    pair = MapPair.of(volume.data * ball, volume.data * ball, SEARCH_LIMIT)
    coarse = _search(pair, turns)
    placed = [align_maps(volume, volume, start=GlobalAlignment(coarse.mT @ g @ coarse, False, 1.0)) for g in turns]
    found = torch.stack([one.rotation for one in placed]).double()
    shifts = torch.stack([one.shift for one in placed]).double()
    rotation = _frame(coarse, turns, found)
    turned = rotation.mT @ turns @ rotation
    # A turn about c is one about the origin followed by the shift (1 - R) c.
    centre = torch.linalg.pinv((torch.eye(3) - turned).flatten(0, 1), rtol=1e-6) @ shifts.flatten()
    moves = torch.einsum("gij,j->gi", torch.eye(3) - turned, centre) * (pair.box / (volume.box * volume.voxel_size))
    values, _ = pair.moved(turned, moves, len(pair.k))
    return SymmetryAxes(rotation, centre, float(pair.shell_correlation(values).mean()))


def _search(pair: MapPair, turns: Float[Tensor, "g 3 3"]) -> Float[Tensor, "3 3"]:
    """The best orientation of the group on a 7.5-degree grid, by way of the best few of a 15-degree one."""
    coarse, fine = OrientationGrid(2), OrientationGrid(3)
    best = _agreement(pair, coarse.rotations(), turns, _COARSE_LIMIT).topk(_CANDIDATES).indices
    frames = fine.rotations(coarse.children(best).flatten())
    return frames[_agreement(pair, frames, turns, pair.limit).argmax()]


def _agreement(
    pair: MapPair, frames: Float[Tensor, "q 3 3"], turns: Float[Tensor, "g 3 3"], limit: int
) -> Float[Tensor, "q"]:
    """Mean over the generators of how far the map agrees with itself turned about the axes of each frame."""
    turned = frames.mT[:, None] @ turns @ frames[:, None]
    _, agreement = pair.best_shifts(turned.flatten(0, 1), min(limit, pair.limit))
    return agreement.unflatten(0, (len(frames), -1)).mean(1)


def _frame(
    coarse: Float[Tensor, "3 3"], turns: Float[Tensor, "g 3 3"], found: Float[Tensor, "g 3 3"]
) -> Float[Tensor, "3 3"]:
    """The rotation that takes the axes found to the group's own (Wahba's problem), near the coarse one.

    The axis of a half-turn has no sign of its own, and one axis leaves a free angle: the coarse frame settles both.
    """
    axes = normalize(matrix_to_rotation_vector(turns), dim=-1)
    seen = normalize(matrix_to_rotation_vector(found), dim=-1)
    expected = axes @ coarse
    seen = torch.where((seen * expected).sum(-1, keepdim=True) < 0, -seen, seen)
    return nearest_rotation(torch.einsum("gi,gj->ij", axes, seen) + 1e-3 * coarse)
