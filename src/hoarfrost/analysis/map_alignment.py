"""One map laid over another: exhaustive search over rotations, shifts and hands, then Gauss-Newton.

The search compares the shells to 8 on a 15-degree grid of rotations, all shifts at once. The best few are refined on
growing balls of Fourier coefficients, each shell weighted by how far it agrees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.analysis.alignment import GlobalAlignment
from hoarfrost.analysis.interpolation import move_volume
from hoarfrost.analysis.map_pair import MapPair
from hoarfrost.analysis.postprocess import flip
from hoarfrost.errors import InputError
from hoarfrost.geometry.rotations import geodesic_distance, nearest_rotation, rotation_vector_to_matrix
from hoarfrost.geometry.so3_grid import OrientationGrid
from hoarfrost.kernels.threads import map_parts
from hoarfrost.physics.masks import soft_sphere
from hoarfrost.types import Volume

SEARCH_LIMIT = 8
"""Shells that the exhaustive search compares; more of them would fall between the points of its 15-degree grid."""

LAST_LIMIT = 48
"""Shells that the refinement compares at most: enough for a hundredth of a degree."""

MOST_TRUSTED = 0.995
"""Shell correlations count as this at most: the interpolation is no better."""

_BALLS_AND_CANDIDATES = ((8, 24), (16, 6), (32, 2), (LAST_LIMIT, 1))
_STEPS = 12


@dataclass(frozen=True)
class MapAlignment:
    """How a map lies over another: ``x_target = rotation @ x_moving + shift`` (Å), mirrored first or not.

    ``correlation`` is the correlation coefficient of the maps so laid, low-passed to the shells compared last.
    """

    rotation: Float[Tensor, "3 3"]
    shift: Float[Tensor, "3"]
    mirrored: bool
    correlation: float

    def apply(self, moving: Volume, target: Volume | None = None) -> Volume:
        """The moving map in the target's frame, on the target's grid (on its own without one)."""
        grid = moving if target is None else target
        mirrored = flip(moving) if self.mirrored else moving
        return move_volume(mirrored, self.rotation, self.shift, box=grid.box, voxel_size=grid.voxel_size)


def align_maps(
    moving: Volume,
    target: Volume,
    *,
    hands: bool = True,
    mask: Float[Tensor, "z y x"] | None = None,
    start: GlobalAlignment | None = None,
) -> MapAlignment:
    """The rotation, shift and hand that lay ``moving`` over ``target``.

    Parameters
    ----------
    moving, target : Volume
        Cubic maps; box and voxel size may differ.
    hands : bool
        Try the mirror image of ``moving`` as well.
    mask : (z, y, x) tensor, optional
        Multiplies the target; without one, a soft ball that fills the box.
    start : GlobalAlignment, optional
        Rotation and hand known from poses: only refined, not searched for.

    Raises
    ------
    InputError
        If the mask has another shape than the target, or a map is constant.
    """
    if mask is not None and mask.shape != target.data.shape:
        raise InputError(f"the mask has shape {tuple(mask.shape)}, the map {tuple(target.data.shape)} (z, y, x)")
    if moving.box != target.box or not math.isclose(moving.voxel_size, target.voxel_size, rel_tol=1e-4):
        turn, shift = torch.eye(3), torch.zeros(3)
        moving = move_volume(moving, turn, shift, box=target.box, voxel_size=target.voxel_size)
    ball = soft_sphere(target.box, 0.45 * target.box, 0.05 * target.box).to(target.data)
    fixed = target.data * (ball if mask is None else mask)

    def of_hand(mirrored: bool) -> tuple[_Placements, MapPair, bool]:
        pair = MapPair.of((flip(moving) if mirrored else moving).data * ball, fixed, LAST_LIMIT)
        placed = _search(pair) if start is None else _placed(pair, start.rotation[None])
        return _refine(pair, placed), pair, mirrored

    tried = [start.mirrored] if start is not None else [False, True] if hands else [False]
    results = map_parts(of_hand, tried, fixed.device)
    best, pair, mirrored = max(results, key=lambda result: float(result[0].agreement[0]))
    values, _ = pair.moved(best.rotations, best.shifts, len(pair.k))
    shift = best.shifts[0] * (target.box / pair.box * target.voxel_size)
    return MapAlignment(best.rotations[0], shift, mirrored, pair.correlation(values[0]))


@dataclass(frozen=True)
class _Placements:
    """Rotations and shifts (voxels of the pair's box) of the moving map and how well they agree."""

    rotations: Float[Tensor, "r 3 3"]
    shifts: Float[Tensor, "r 3"]
    agreement: Float[Tensor, "r"]

    def __getitem__(self, rows: Int[Tensor, "b"]) -> _Placements:
        return _Placements(self.rotations[rows], self.shifts[rows], self.agreement[rows])

    def best(self, count: int) -> _Placements:
        """The ``count`` that agree best, best first."""
        return self[self.agreement.topk(min(count, len(self.agreement))).indices]


def _search(pair: MapPair) -> _Placements:
    """The best orientations of the 15-degree grid, none within a step of a better one."""
    grid = OrientationGrid(2)
    placed = _placed(pair, grid.rotations())
    count = _BALLS_AND_CANDIDATES[0][1]
    order = placed.agreement.argsort(descending=True)[: 20 * count]
    kept = order[:1]
    for row in order[1:]:
        if geodesic_distance(placed.rotations[kept], placed.rotations[row]).min() > 1.2 * grid.spacing:
            kept = torch.cat([kept, row[None]])
        if len(kept) == count:
            break
    return placed[kept]


def _placed(pair: MapPair, rotations: Float[Tensor, "r 3 3"]) -> _Placements:
    shifts, agreement = pair.best_shifts(rotations, min(SEARCH_LIMIT, pair.limit))
    return _Placements(rotations.to(shifts), shifts, agreement)


def _refine(pair: MapPair, start: _Placements) -> _Placements:
    """The best placement after Gauss-Newton on growing balls, with fewer candidates on each."""
    for limit, candidates in _BALLS_AND_CANDIDATES:
        start = _climb(pair, start.best(candidates), min(limit, pair.limit))
    return start.best(1)


def _climb(pair: MapPair, start: _Placements, limit: int) -> _Placements:
    """Levenberg-Marquardt on ``sum_k w |T - b M|^2`` over rotation, shift and scale ``b``; each placement for itself.

    With weights ``F / (1 - F^2)`` from the shell correlations ``F`` its gradient is that of the likelihood
    ``-1/2 sum log(1 - F^2)`` of maps that share a signal: shells that do not agree have no say.
    """
    here, matrix, right = _linearised(pair, start.rotations, start.shifts, limit)
    damping = torch.full_like(here.agreement, 1e-3)
    for _ in range(_STEPS):
        diagonal = torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1) * damping[:, None])
        step = torch.linalg.solve(matrix + diagonal, right)
        turn = rotation_vector_to_matrix(step[:, :3])
        trial, trial_matrix, trial_right = _linearised(
            pair, nearest_rotation(turn @ here.rotations), here.shifts + step[:, 3:6], limit
        )
        better = trial.agreement > here.agreement
        damping = torch.where(better, damping / 5, damping * 10).clamp(1e-8, 1e6)
        pick = better[:, None]
        here = _Placements(
            torch.where(pick[..., None], trial.rotations, here.rotations),
            torch.where(pick, trial.shifts, here.shifts),
            torch.where(better, trial.agreement, here.agreement),
        )
        matrix = torch.where(pick[..., None], trial_matrix, matrix)
        right = torch.where(pick, trial_right, right)
        if float(step[:, :3].abs().max()) < 1e-6 and float(step[:, 3:6].abs().max()) < 1e-5:
            break
    return here


def _linearised(
    pair: MapPair, rotations: Float[Tensor, "r 3 3"], shifts: Float[Tensor, "r 3"], limit: int
) -> tuple[_Placements, Float[Tensor, "r 7 7"], Float[Tensor, "r 7"]]:
    """The placements with their agreement, and the normal equations of a step from them."""
    count = pair.count(limit)
    values, derivatives = pair.moved(rotations, shifts, count)
    correlation = pair.shell_correlation(values)
    # A little weight everywhere keeps the equations solvable where nothing agrees.
    trust = correlation.clamp(0.01, MOST_TRUSTED)
    weight = pair.weight[:count] * (trust / (1 - trust.square()))[:, pair.shell[:count] - 1]
    likelihood = -0.5 * (pair.shell_sizes(count) * torch.log1p(-correlation.clamp(0, MOST_TRUSTED).square())).sum(-1)
    target = pair.target[:count]
    scale = (weight * (values.conj() * target).real).sum(-1) / (weight * values.abs().square()).sum(-1)
    columns = torch.cat([derivatives * scale[:, None, None], values[..., None]], dim=-1)
    rest = target - scale[:, None] * values
    weighted = columns.conj() * weight[..., None]
    matrix = torch.einsum("rmi,rmj->rij", weighted, columns).real.double()
    right = torch.einsum("rmi,rm->ri", weighted, rest).real.double()
    return _Placements(rotations, shifts, likelihood), matrix, right
