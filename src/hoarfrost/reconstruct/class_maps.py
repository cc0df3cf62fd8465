"""The maps of several classes from weighted particles, and particles compared with maps that do not hold them.

An image is never compared with a map that holds it: each class has a map for every fold of the particles, made from
the other folds. Otherwise the image's own noise would bind it to its class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.data.dataset import BandStack
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.geometry.symmetry import point_group
from hoarfrost.kernels.threads import map_parts
from hoarfrost.optimise.loop import State
from hoarfrost.physics.masks import soft_sphere
from hoarfrost.poses.gauss_newton import log_likelihood
from hoarfrost.reconstruct.backprojection import BackProjection, images_at_once, symmetrise
from hoarfrost.reconstruct.half_maps import inside, small_box
from hoarfrost.representations.voxel import FourierVolume

FOLDS = 4
"""Parts of the particles; each is compared with maps of the others."""

LIKENESS = 0.5
"""How strongly a class is held to the map of all, in units of its own mean weight in the shell."""


@dataclass(frozen=True)
class ClassMaps:
    """The maps of several classes in one band, from weighted particles at their poses."""

    stack: BandStack
    band: Band
    radius: float  # Å; density is sought inside this sphere
    symmetry: str

    @property
    def grid(self) -> SliceGrid:
        """The slice grid of the sums."""
        return SliceGrid(small_box(self.band.box, self.band.limit), self.band.limit)

    def sums(self, state: State, rows: Int[Tensor, "n"], weights: Float[Tensor, "n k"]) -> list[BackProjection]:
        """Sums of these particles for every class."""
        grid = self.grid
        sums = [BackProjection.empty(grid, self.stack.device) for _ in range(weights.shape[1])]
        for part in torch.arange(len(rows)).split(images_at_once(self.band)):
            mine = rows[part]
            images = self.stack.images(mine, self.band)
            for one, weight in zip(sums, weights[part].T, strict=True):
                # Both sums, of C X and of C^2, take the weight once.
                root = weight.sqrt()[:, None].to(images.transfer)
                weighted = replace(images, vectors=images.vectors * root, transfer=images.transfer * root)
                one.add(weighted, state["rotations"][mine], state["shifts"][mine])
        operators = point_group(self.symmetry)
        return [symmetrise(one, operators) for one in sums]

    def densities(self, sums: Sequence[BackProjection]) -> list[FourierVolume]:
        """The map of every class, where it has few data that of all classes together."""
        grid, folded = self.grid, [one.folded() for one in sums]
        joined = reduce(add, folded)
        shells = joined.shells
        known, shells = shells <= grid.limit, shells.clamp(max=grid.limit)
        common = joined.data / (joined.weight + 0.05 * joined.weight_per_shell[shells]).clamp(min=1e-9)
        voxel_size = self.band.box * self.stack.pixel_size / grid.box
        mask = soft_sphere(grid.box, self.radius / voxel_size, 2.0).to(joined.weight)
        densities = []
        for one in folded:
            likeness = (LIKENESS * one.weight_per_shell[shells]).clamp(min=1e-9)
            transform = torch.where(known, (one.data + likeness * common) / (one.weight + likeness), 0)
            densities.append(FourierVolume(inside(grid.inverse(transform), mask), voxel_size, grid))
        return densities

    def scores(
        self,
        state: State,
        rows: Int[Tensor, "n"],
        weights: Float[Tensor, "n k"],
        fold: Int[Tensor, "n"],
        inverse_noise: Float[Tensor, "m"],
    ) -> Float[Tensor, "n k"]:
        """Log-likelihood of every particle in every class, by maps of the other folds."""
        folds, device = range(int(fold.max()) + 1), self.stack.device

        def summed(number: int) -> list[BackProjection]:
            mine = fold == number
            return self.sums(state, rows[mine], weights[mine])

        parts = map_parts(summed, folds, device)

        def scored(number: int) -> Float[Tensor, "b k"]:
            others = [part for other, part in enumerate(parts) if other != number]
            densities = self.densities([reduce(add, one) for one in zip(*others, strict=True)])
            found = []
            for mine in rows[fold == number].split(1024):
                images, poses = self.stack.images(mine, self.band), (state["rotations"][mine], state["shifts"][mine])
                found.append(torch.stack([log_likelihood(images, one, *poses, inverse_noise) for one in densities], 1))
            return torch.cat(found).cpu()

        scores = torch.cat(map_parts(scored, folds, device))
        order = torch.cat([(fold == number).nonzero()[:, 0] for number in folds])
        return torch.empty_like(scores).index_copy(0, order, scores)


def folds_of(count: int, seed: int) -> Int[Tensor, "n"]:
    """A fold for every particle, at random, all equally large."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)) % FOLDS
