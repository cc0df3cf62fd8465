"""Refinement of poses by their gradient, for any differentiable density.

A pose moves in its tangent space: ``R -> R exp([w])`` and ``t -> t + s`` with the five numbers ``(w, s)`` taken from
Adam (Kingma & Ba 2015). Its moments belong to each particle and are touched only when the particle is, unlike those of
a dense optimiser, whose stale momentum moves particles that are not in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.data.dataset import BandImages
from hoarfrost.geometry.rotations import nearest_rotation, rotation_vector_to_matrix
from hoarfrost.kernels.threads import in_parts, map_parts
from hoarfrost.poses.base import PosePosterior
from hoarfrost.poses.gauss_newton import RefinedPoses
from hoarfrost.poses.likelihood import likelihood_at
from hoarfrost.representations.base import Density, of_images

POINTS_AT_ONCE = 100_000
"""Slice points in one batch: their intermediate arrays stay in the second-level cache."""


@dataclass(frozen=True)
class PoseTable:
    """The poses of particles (shifts in pixels) and what Adam remembers of each; rows are picked and put back."""

    rotations: Float[Tensor, "n 3 3"]
    shifts: Float[Tensor, "n 2"]
    mean: Float[Tensor, "n 5"]  # of the gradients
    square: Float[Tensor, "n 5"]  # mean of their squares
    steps: Int[Tensor, "n"]

    @classmethod
    def of(cls, rotations: Float[Tensor, "n 3 3"], shifts: Float[Tensor, "n 2"]) -> PoseTable:
        """Poses without a history."""
        nothing = torch.zeros(len(rotations), 5, dtype=torch.float64, device=rotations.device)
        steps = torch.zeros(len(rotations), dtype=torch.int64, device=rotations.device)
        return cls(rotations.double(), shifts.double(), nothing, nothing.clone(), steps)

    def __len__(self) -> int:
        return len(self.rotations)

    def __getitem__(self, rows: slice | Int[Tensor, "b"]) -> PoseTable:
        return PoseTable(*(column[rows] for column in self.columns))

    def updated(self, rows: Int[Tensor, "b"], batch: PoseTable) -> PoseTable:
        """The table with these rows replaced; all others are as they were."""
        return PoseTable(
            *(
                column.index_copy(0, rows, new.to(column))
                for column, new in zip(self.columns, batch.columns, strict=True)
            )
        )

    @property
    def columns(self) -> tuple[Tensor, ...]:
        """All tensors, in order."""
        return self.rotations, self.shifts, self.mean, self.square, self.steps


@dataclass(frozen=True)
class PoseAdam:
    """Steps of Adam on SO(3) x R^2; the rates fall with the inverse root of a particle's steps."""

    weight: Float[Tensor, "m"]  # inverse noise variance of the whitened coefficients
    iterations: int = 20
    turn: float = 0.02  # radians; the first step about each axis
    move: float = 0.2  # pixels; the first step on each axis
    memory: tuple[float, float] = (0.8, 0.95)  # of the mean gradient and of its square

    def advance(self, images: BandImages, density: Density, table: PoseTable) -> tuple[PoseTable, RefinedPoses]:
        """``iterations`` steps of a batch from its rows of the table.

        Returns
        -------
        PoseTable
            The rows after the last step, to go on from when the particles come again.
        RefinedPoses
            The best pose of each image on the way, the first and the last included: none is worse than it began.
        """
        device = images.vectors.device
        table = PoseTable(*(column.to(device) for column in table.columns))
        every = torch.arange(len(images), device=device)
        # The tables of a density are made once here, not by every thread.
        likelihood_at(images[:1], of_images(density, every[:1]), table.rotations[:1], table.shifts[:1], self.weight)

        def advance(rows: slice) -> tuple[PoseTable, RefinedPoses]:
            return self._advance_part(images[rows], of_images(density, every[rows]), table[rows])

        size = max(1, POINTS_AT_ONCE // len(images.band))
        tables, best = zip(*map_parts(advance, in_parts(len(images), size), device), strict=True)
        columns = zip(*(part.columns for part in tables), strict=True)
        return PoseTable(*(torch.cat(column) for column in columns)), RefinedPoses(
            torch.cat([p.rotations for p in best]),
            torch.cat([p.shifts for p in best]),
            torch.cat([p.log_likelihood for p in best]),
        )

    def _advance_part(self, images: BandImages, density: Density, table: PoseTable) -> tuple[PoseTable, RefinedPoses]:
        rotations, shifts, mean, square, steps = table.columns
        best = RefinedPoses(rotations, shifts, torch.full((len(images),), -torch.inf, device=rotations.device))
        first, second = self.memory
        for _ in range(self.iterations):
            value, slope = value_and_slope(images, density, rotations, shifts, self.weight)
            best = _better(best, RefinedPoses(rotations, shifts, value))
            steps = steps + 1
            slope = slope.to(mean)
            mean = first * mean + (1 - first) * slope
            square = second * square + (1 - second) * slope.square()
            count = steps[:, None].to(mean)
            direction = mean / (1 - first**count) / (square / (1 - second**count)).sqrt().clamp(min=1e-12)
            step = direction * count.rsqrt()
            rotations = nearest_rotation(rotations @ rotation_vector_to_matrix(self.turn * step[:, :3]))
            shifts = shifts + self.move * step[:, 3:]
        value = likelihood_at(images, density, rotations, shifts, self.weight).detach()
        return PoseTable(rotations, shifts, mean, square, steps), _better(best, RefinedPoses(rotations, shifts, value))


def value_and_slope(
    images: BandImages,
    density: Density,
    rotations: Float[Tensor, "b 3 3"],
    shifts: Float[Tensor, "b 2"],
    weight: Float[Tensor, "m"],
) -> tuple[Float[Tensor, "b"], Float[Tensor, "b 5"]]:
    """The log-likelihood at a pose and its derivatives by the turn (object's frame, radians) and the shift (pixels)."""
    with torch.enable_grad():
        motion = torch.zeros(len(images), 5, dtype=images.transfer.dtype, device=images.transfer.device)
        motion.requires_grad_()
        turned = rotations.to(motion) @ rotation_vector_to_matrix(motion[:, :3])
        value = likelihood_at(images, density, turned, shifts.to(motion) + motion[:, 3:], weight)
        # The images do not know of each other: the slope of the sum holds that of each.
        (slope,) = torch.autograd.grad(value.sum(), motion)
    return value.detach(), slope


def _better(first: RefinedPoses, second: RefinedPoses) -> RefinedPoses:
    better = second.log_likelihood > first.log_likelihood
    return RefinedPoses(
        torch.where(better[:, None, None], second.rotations, first.rotations),
        torch.where(better[:, None], second.shifts, first.shifts),
        torch.where(better, second.log_likelihood, first.log_likelihood),
    )


@dataclass(frozen=True)
class GradientRefinement:
    """Adam from given poses (shifts in pixels), as an estimator; for a run over many batches keep a :class:`PoseTable`.

    On voxels :class:`~hoarfrost.poses.gauss_newton.PoseRefinement` gets nearer in fewer reads of the density.
    """

    method: PoseAdam
    rotations: Float[Tensor, "b 3 3"]
    shifts: Float[Tensor, "b 2"]

    def estimate(self, images: BandImages, density: Density) -> PosePosterior:
        """The refined pose of every image."""
        _, best = self.method.advance(images, density, PoseTable.of(self.rotations, self.shifts))
        return PosePosterior(best.rotations[:, None], best.shifts[:, None], best.log_likelihood[:, None])
