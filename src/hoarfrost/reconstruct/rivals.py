"""The contest of a particle's pose with its rivals: other optima of its likelihood, far from it and right beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.analysis.confidence import likelihood_gap
from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.so3_grid import OrientationGrid
from hoarfrost.geometry.symmetry import least_turn, symmetric_distance
from hoarfrost.poses.gauss_newton import GaussNewton, RefinedPoses, log_likelihood
from hoarfrost.poses.likelihood import SliceBank
from hoarfrost.poses.search import search_bank
from hoarfrost.reconstruct.annealing import CoarseModel
from hoarfrost.reconstruct.frames import Motion
from hoarfrost.representations.voxel import FourierVolume

DISTINCT = 0.45
"""Radians from the present pose at which a candidate counts as another answer (1.7 steps of a 15-degree grid).

A third of the angle between equivalent poses where that is less: half-way between them lie false optima.
"""

NEXT = 0.4
"""Share of that within which a node of the grid is next to a pose. Others so near ..."""

BESIDE = 0.9
"""... compete if they reach this share of the best score of all so near: the pose may be beside its optimum."""

SEARCHED = 16
"""Shells in which images are compared with the grid: finer detail turns away between its nodes ..."""

FINELY = 20
"""... or this many with a grid of half the steps."""

MANY = 8
"""Rivals at least from such a grid: the right pose of a faint image often is not among the best three.

So many as well for an image that fits none of fewer.
"""

KEPT = 64
"""Orientations of the grid among which rivals are sought."""

SERIOUS = 0.8
"""Share of the present pose's score on the grid from which a candidate is worth refining ..."""

SLACK = 10.0
"""... or so many nats below that: what noise and the coarse grid do to a score, however small."""


@dataclass(frozen=True)
class Contest:
    """Candidate poses of a batch (shifts in pixels) and their log-likelihoods, ``-inf`` where there is none."""

    rotations: Float[Tensor, "b c 3 3"]
    shifts: Float[Tensor, "b c 2"]
    log_likelihood: Float[Tensor, "b c"]

    @property
    def winner(self) -> Int[Tensor, "b"]:
        """The likeliest candidate of each image."""
        return self.log_likelihood.argmax(1)

    @property
    def best(self) -> tuple[Float[Tensor, "b 3 3"], Float[Tensor, "b 2"]]:
        """The likeliest pose of each image."""
        return self.at(torch.arange(len(self.rotations)), self.winner)

    def at(
        self, rows: Int[Tensor, "k"], candidate: Int[Tensor, "k"]
    ) -> tuple[Float[Tensor, "k 3 3"], Float[Tensor, "k 2"]]:
        """One candidate each of some images."""
        return self.rotations[rows, candidate], self.shifts[rows, candidate]

    def fit(self, images: BandImages, density: FourierVolume, weight: Float[Tensor, "m"]) -> Float[Tensor, "b"]:
        """By how many deviations of its noise each image fits its winner better than images do in the middle.

        The log-likelihood of a right pose scatters by ``2 sqrt(P)`` about a multiple of ``P = sum v C^2 |Y|^2``.
        """
        empty = BandImages(images.band, torch.zeros_like(images.vectors), images.transfer, images.frequency_matrix)
        rotations, shifts = (one.to(images.vectors.device) for one in self.best)
        power = (-log_likelihood(empty, density, rotations, shifts, weight)).cpu().clamp(min=1e-6)
        reached = self.log_likelihood.amax(1)
        return (reached - (reached / power).median() * power) / (2 * power.sqrt())

    @classmethod
    def alone(cls, present: RefinedPoses, rivals: int) -> Contest:
        """Poses that have no rival yet, and room for so many."""
        return cls(present.rotations[:, None], present.shifts[:, None], present.log_likelihood[:, None])._widened(
            1 + rivals
        )

    def enter(self, candidate: int, rows: Int[Tensor, "k"], poses: RefinedPoses) -> None:
        """Put poses of some images in the place of one of their candidates."""
        self.rotations[rows, candidate], self.shifts[rows, candidate] = poses.rotations, poses.shifts
        self.log_likelihood[rows, candidate] = poses.log_likelihood

    def replaced(self, rows: Int[Tensor, "k"], other: Contest) -> Contest:
        """The contest with that of some images, of at least as many candidates, in place of their own."""
        mine = self._widened(other.log_likelihood.shape[1])
        return Contest(
            mine.rotations.index_copy(0, rows, other.rotations),
            mine.shifts.index_copy(0, rows, other.shifts),
            mine.log_likelihood.index_copy(0, rows, other.log_likelihood),
        )

    def _widened(self, count: int) -> Contest:
        """The contest with room for more candidates that there are not."""
        room = self.log_likelihood.new_full((len(self.rotations), count - self.log_likelihood.shape[1]), -torch.inf)
        return Contest(
            torch.cat([self.rotations, self.rotations[:, :1].expand(-1, room.shape[1], -1, -1)], 1),
            torch.cat([self.shifts, self.shifts[:, :1].expand(-1, room.shape[1], -1)], 1),
            torch.cat([self.log_likelihood, room], 1),
        )

    def gap(self, images: BandImages, density: FourierVolume, weight: Float[Tensor, "m"]) -> Float[Tensor, "b"]:
        """How much likelier the winner is than all its rivals in a map that the images have no part in."""
        device, values = images.vectors.device, self.log_likelihood.clone()
        for candidate in range(values.shape[1]):
            rows = values[:, candidate].isfinite().nonzero()[:, 0]
            if len(rows):
                rotations, shifts = (one[rows, candidate].to(device) for one in (self.rotations, self.shifts))
                values[rows, candidate] = log_likelihood(images[rows], density, rotations, shifts, weight).cpu()
        return likelihood_gap(values, self.winner)


@dataclass(frozen=True)
class Rivals:
    """How rivals are found, on the grid of a model and where the map looks alike, and refined."""

    model: CoarseModel
    count: int  # on the grid
    iterations: int
    look_alikes: tuple[Motion, ...] = ()  # after which the map looks nearly as before; shifts in pixels
    searched: int = SEARCHED
    apart: float = DISTINCT

    def finer(self) -> Rivals:
        """More rivals, from a grid of half the steps."""
        model = replace(self.model, orientations=OrientationGrid(self.model.orientations.order + 1))
        return replace(self, model=model, count=max(self.count, MANY), searched=FINELY, apart=self.apart / 2)

    def bank(
        self, density: FourierVolume, band: Band, weight: Float[Tensor, "m"], frame: Float[Tensor, "3 3"]
    ) -> SliceBank:
        """The slices of all orientations of the grid, turned by ``frame``, in as much of a band as the grid can tell."""
        return self.model.search(weight, 0, frame).bank(density, band.prefix(min(self.searched, band.limit)))

    def search(
        self,
        images: BandImages,
        bank: SliceBank,
        weight: Float[Tensor, "m"],
        about: Float[Tensor, "b 2"] | None = None,
    ) -> Contest:
        """The best poses of the whole grid, at all its shifts, or at those near ``about`` (pixels)."""
        images, weight = images.prefix(bank.band.limit), weight[: len(bank.band)]
        shifts, centre = self.model.shifts, torch.zeros(len(images), 2)
        if about is not None:
            shifts, centre, images = self.model.near_shifts, about.float(), images.centred(about)
        found = search_bank(images, bank, shifts, weight, KEPT)
        rotations = bank.rotations[found.orientation].double()
        return Contest(rotations, centre[:, None] + shifts[found.shift], found.log_likelihood)

    def compete(
        self,
        images: BandImages,
        density: FourierVolume,
        weight: Float[Tensor, "m"],
        rotations: Float[Tensor, "b 3 3"],
        shifts: Float[Tensor, "b 2"],
        found: Contest,
        ahead: float = 0.0,
    ) -> Contest:
        """These poses and their rivals, those of a map's look-alikes and among those found on the grid, all refined.

        Nothing is given for what a map owes to the images themselves: the nats by which that puts them ``ahead`` at their
        present poses (see :mod:`hoarfrost.reconstruct.own_share`).
        """

        def refine(rows: Int[Tensor, "k"], start: Float[Tensor, "k 3 3"], at: Float[Tensor, "k 2"]) -> RefinedPoses:
            return GaussNewton(weight, self.iterations).refine(images[rows], density, start, at).cpu()

        everyone, looking_alike = torch.arange(len(images)), len(self.look_alikes)
        present = refine(everyone, rotations, shifts)
        contest = Contest.alone(present, looking_alike + 1 + self.count)
        contest.log_likelihood[:, 0] -= ahead

        def enter(rival: int, rows: Int[Tensor, "k"], start: Float[Tensor, "k 3 3"], at: Float[Tensor, "k 2"]) -> None:
            refined = refine(rows, start, at)
            # A rival that came back to the present pose is no rival.
            back = self._near(present.rotations[rows], refined.rotations[:, None], self._bounded(DISTINCT) / 3)[:, 0]
            contest.enter(
                rival, rows, replace(refined, log_likelihood=refined.log_likelihood.masked_fill(back, -torch.inf))
            )

        apart = self._bounded(self.apart)
        taken = self._near(present.rotations, found.rotations, apart)
        # The best orientation of the grid near the present pose; without one, the pose itself is no good.
        own = found.log_likelihood.masked_fill(~taken, -torch.inf).amax(1)
        beside = taken & ~self._near(present.rotations, found.rotations, NEXT * apart)
        score, pick = found.log_likelihood.masked_fill(~beside, -torch.inf).max(1)
        rows = (score > BESIDE * own).nonzero()[:, 0]
        enter(looking_alike + 1, rows, *found.at(rows, pick[rows]))
        for rival, motion in enumerate(self.look_alikes, 1):
            start, at = motion.apply(present.rotations, present.shifts, 1.0)
            enter(rival, everyone, start, at)
            taken |= self._near(start, found.rotations, apart)
        for rival in range(looking_alike + 2, looking_alike + 2 + self.count):
            score, pick = found.log_likelihood.masked_fill(taken, -torch.inf).max(1)
            rows = (score > SERIOUS * own - SLACK).nonzero()[:, 0]
            if len(rows) == 0:
                break
            start, at = found.at(rows, pick[rows])
            enter(rival, rows, start, at)
            taken[rows] |= self._near(start, found.rotations[rows], apart)
        return contest

    def _bounded(self, angle: float) -> float:
        return min(angle, least_turn(self.model.symmetry) / 3)

    def _near(self, pose: Float[Tensor, "b 3 3"], others: Float[Tensor, "b c 3 3"], radius: float) -> Tensor:
        return symmetric_distance(pose[:, None].expand_as(others), others, self.model.symmetry) < radius
