"""Soft assignment on ever finer grids: every image counts at all the poses that it may have, by their probability.

Few images, or noisy ones, leave their poses open by more than a map at that resolution can bear. Placed at their best
poses, they build their noise into the map, which then confirms the poses; spread over their posterior they do not.
Each round lays a small grid of rotations and shifts about the poses that an image still may have, weighs its nodes by
the likelihood, and back-projects the image at all of them. The spacing halves from round to round. Every node counts
here; :mod:`hoarfrost.poses.local_search`, which seeks the best pose alone, weeds its cells out as it goes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import (
    nearest_rotation,
    random_rotations,
    rotation_vector_to_matrix,
)
from hoarfrost.geometry.shift_grid import shift_grid
from hoarfrost.geometry.symmetry import symmetric_distance
from hoarfrost.kernels.threads import in_parts, map_parts
from hoarfrost.poses.likelihood import weighted_data
from hoarfrost.reconstruct.backprojection import BackProjection
from hoarfrost.representations.voxel import FourierVolume

POINTS_AT_ONCE = 400_000
"""Slice points scored together."""

LEAST_WEIGHT = 1e-3
"""Nodes and modes of less posterior probability than this are left out."""


@dataclass(frozen=True)
class LocalGrid:
    """Small turns and moves about a pose: ``R exp([v])`` for rotation vectors ``v`` (radians), ``t + d`` (pixels)."""

    turns: Float[Tensor, "g 3"]
    moves: Float[Tensor, "t 2"]

    @classmethod
    def of(cls, spacing: float, step: float, generator: torch.Generator) -> LocalGrid:
        """Turns on a cubic lattice out to two ``spacing`` (radians), 21 moves out to two ``step`` (pixels).

        The lattice is turned and displaced at random by up to half a spacing, so that no map learns its nodes.
        """
        axis = torch.arange(-2.0, 3.0)
        lattice = torch.cartesian_prod(axis, axis, axis)
        lattice = lattice[lattice.square().sum(-1) <= 4] + torch.rand(3, generator=generator) - 0.5
        turns = spacing * lattice @ random_rotations(1, generator, torch.float32)[0]
        moves = shift_grid(2 * step, 5) + step * (torch.rand(2, generator=generator) - 0.5)
        return cls(turns, moves)

    def to(self, device: torch.device) -> LocalGrid:
        """The grid on another device."""
        return LocalGrid(self.turns.to(device), self.moves.to(device))


@dataclass(frozen=True)
class Modes:
    """The few poses that each image may have (shifts in pixels), and their probabilities; those of weight 0 are none."""

    rotations: Float[Tensor, "b j 3 3"]
    shifts: Float[Tensor, "b j 2"]
    weight: Float[Tensor, "b j"]


@dataclass(frozen=True)
class Spread:
    """Images at the poses of their posterior, ready for back-projection, and the modes that they then have."""

    modes: Modes
    log_likelihood: Float[Tensor, "b"]  # log of the mean likelihood over all nodes, up to a constant
    rotations: Float[Tensor, "k 3 3"]
    data: Complex[Tensor, "k m"]
    power: Float[Tensor, "k m"]
    frequency_matrix: Float[Tensor, "k 2 2"] | None


def spread(
    images: BandImages, density: FourierVolume, modes: Modes, grid: LocalGrid, weight: Float[Tensor, "m"]
) -> Spread:
    """The posterior of every image on a grid about each of its modes."""
    density.values  # noqa: B018 - made once here, not by every thread
    size = max(1, POINTS_AT_ONCE // (len(grid.turns) * len(images.band)))

    def part(rows: slice) -> Spread:
        own = Modes(modes.rotations[rows], modes.shifts[rows], modes.weight[rows])
        return _spread_part(images[rows], density, own, grid, weight)

    parts = map_parts(part, in_parts(len(images), size), images.vectors.device)
    matrices = [p.frequency_matrix for p in parts if p.frequency_matrix is not None]
    return Spread(
        Modes(
            torch.cat([p.modes.rotations for p in parts]),
            torch.cat([p.modes.shifts for p in parts]),
            torch.cat([p.modes.weight for p in parts]),
        ),
        torch.cat([p.log_likelihood for p in parts]),
        torch.cat([p.rotations for p in parts]),
        torch.cat([p.data for p in parts]),
        torch.cat([p.power for p in parts]),
        torch.cat(matrices) if matrices else None,
    )


def _spread_part(
    images: BandImages, density: FourierVolume, modes: Modes, grid: LocalGrid, weight: Float[Tensor, "m"]
) -> Spread:
    image, mode = (modes.weight > 0).nonzero(as_tuple=True)
    turns = rotation_vector_to_matrix(grid.turns.double())
    centre, shift = modes.rotations[image, mode], modes.shifts[image, mode]
    rotations = (centre[:, None] @ turns).float()  # (pair, turn)
    matrix = (
        None if images.frequency_matrix is None else images.frequency_matrix[image].repeat_interleave(len(turns), 0)
    )
    slices = density.project(rotations.flatten(0, 1), images.band, matrix).unflatten(0, rotations.shape[:2])
    data, power = weighted_data(images, weight)
    shifts = shift[:, None].float() + grid.moves
    moved = data[image][:, None] * images.band.shift_phases(-shifts)
    cross = torch.view_as_real(moved).flatten(-2) @ torch.view_as_real(slices).flatten(-2).mT
    norms = (slices.abs().square() @ power[image][..., None])[..., 0]
    score = 2 * cross - norms[:, None]  # (pair, move, turn)

    count = len(images)
    best = torch.full((count,), -torch.inf, device=score.device).scatter_reduce(0, image, score.amax((1, 2)), "amax")
    likelihood = (score - best[image][:, None, None]).exp()
    total = torch.zeros(count, device=score.device).index_add(0, image, likelihood.sum((1, 2)))
    posterior = likelihood / total[image][:, None, None]

    by_turn = posterior.sum(1)
    pair, turn = (by_turn > LEAST_WEIGHT).nonzero(as_tuple=True)
    spread_data = (posterior.mT.to(moved.dtype) @ moved)[pair, turn]
    share = by_turn[pair, turn]

    held = by_turn.sum(1)
    mean_turn = (by_turn @ grid.turns) / held[:, None].clamp(min=1e-20)
    mean_move = (posterior.sum(2) @ grid.moves) / held[:, None].clamp(min=1e-20)
    found = Modes(modes.rotations.clone(), modes.shifts.clone(), torch.zeros_like(modes.weight))
    found.rotations[image, mode] = nearest_rotation(centre @ rotation_vector_to_matrix(mean_turn.double()))
    found.shifts[image, mode] = shift + mean_move.double()
    found.weight[image, mode] = held
    nodes = torch.bincount(image, minlength=count) * score[0].numel()
    return Spread(
        found,
        best + total.log() - nodes.log(),
        rotations[pair, turn],
        spread_data,
        share[:, None] * power[image[pair]],
        None if images.frequency_matrix is None else images.frequency_matrix[image[pair]],
    )


def distinct(modes: Modes, apart: float, symmetry: str) -> Modes:
    """The modes, likeliest first; one nearer than ``apart`` (radians) to a likelier one joins it, faint ones vanish.

    Poses that the point group makes equivalent are one.
    """
    weight, order = modes.weight.sort(dim=1, descending=True)
    rows = torch.arange(len(order))[:, None]
    rotations, shifts = modes.rotations[rows, order], modes.shifts[rows, order]
    weight = weight.clone()
    for later in range(1, weight.shape[1]):
        here = rotations[:, later : later + 1].expand(-1, later, -1, -1)
        near = symmetric_distance(rotations[:, :later], here, symmetry) < apart
        near &= weight[:, :later] > 0
        joins = near.any(1) & (weight[:, later] > 0)
        target = near.int().argmax(1)
        gained = torch.where(joins, weight[:, later], 0.0)
        weight.scatter_add_(1, target[:, None], gained[:, None])
        weight[joins, later] = 0.0
    weight = torch.where(weight > LEAST_WEIGHT, weight, 0.0)
    return Modes(rotations, shifts, weight / weight.sum(1, keepdim=True))


def insert_spread(sums: BackProjection, found: Spread, band: Band) -> None:
    """Back-project spread images."""
    sums.grid.insert_slices(sums.sums, found.rotations, band, found.data, found.power, found.frequency_matrix)
