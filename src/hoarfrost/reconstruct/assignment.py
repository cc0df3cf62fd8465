"""Where every particle sits in the map of its half."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.data.dataset import BandStack
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.optimise.loop import State
from hoarfrost.poses.likelihood import search_teraflop
from hoarfrost.poses.rough_shifts import rough_shifts
from hoarfrost.poses.search import search_bank
from hoarfrost.reconstruct.annealing import WORK, CoarseModel
from hoarfrost.reconstruct.backprojection import BackProjection

IMAGES_A_STEP = 16_384
"""Particles assigned in one step of the full pass; every step makes its slices anew."""


@dataclass(frozen=True)
class FullPass:
    """Search the pose of every particle in the map of its half, and move the origin to the centre of mass."""

    stack: BandStack
    model: CoarseModel
    limit: int
    seed: int
    name: str = "full-pass"
    title: str = "Searching the poses of all particles"

    @property
    def steps(self) -> int:
        """Chunks of the stack."""
        return -(-len(self.stack) // IMAGES_A_STEP)

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Search one chunk."""
        count = len(self.stack)
        if step == 0:
            state = state | {
                "rotations": torch.eye(3, dtype=torch.float64).repeat(count, 1, 1),
                "shifts": torch.zeros(count, 2, dtype=torch.float64),
                "score": torch.zeros(count),
            }
        state = dict(state)
        rows = torch.arange(step * IMAGES_A_STEP, min((step + 1) * IMAGES_A_STEP, count))
        frame = random_rotations(1, torch.Generator().manual_seed(self.seed + step))[0]
        work = 0.0
        for half in (1, 2):
            mine = rows[state["half"][rows] == half]
            work += self._search(state, half, mine, frame)
        return state, {"score": float(state["score"][rows].mean()), WORK: work}

    def _search(self, state: State, half: int, rows: Int[Tensor, "b"], frame: Float[Tensor, "3 3"]) -> float:
        band = Band(self.stack.band.box, self.limit)
        sums = BackProjection(self.model.grid(self.limit), state[f"half-{half}.sums"].to(self.stack.device))
        density = self.model.density(sums)
        weight = band.at_shells(1 / state[f"half-{half}.noise"]).float()
        bank = self.model.search(weight, 0, frame).bank(density, band)
        images = self.stack.images(rows, band)
        rough = rough_shifts(images, density, self.model.shifts, weight, frame)
        found = search_bank(images.centred(rough), bank, self.model.near_shifts, weight, 16)
        shifts = rough + self.model.near_shifts[found.shift[:, 0]]
        rotations = bank.rotations[found.orientation[:, 0]].double()
        centre = (rotations @ state["centre"].double())[:, :2]
        for key, value in (
            ("rotations", rotations),
            ("shifts", shifts.double() + centre),
            ("score", found.log_likelihood[:, 0]),
        ):
            state[key] = state[key].index_copy(0, rows, value)
        return search_teraflop(len(rows), len(self.model.near_shifts), bank)


def split_halves(count: int, groups: Int[Tensor, "n"] | None, seed: int) -> Int[Tensor, "n"]:
    """Half (1 or 2) of every particle: drawn at random, the two equally large within every group."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.empty(count, dtype=torch.int64)
    labels = torch.zeros(count, dtype=torch.int64) if groups is None else groups
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        half[shuffled] = 1 + torch.arange(len(rows)) % 2
    return half
