"""Particles that went astray, which look like junk in a wrong pose: they are searched once more before they are judged.

A search of all particles leaves some of ten thousand in a false optimum, the next one to their own or one that is far
off, for want of a node of the grid near enough to the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.optimise.loop import State
from hoarfrost.reconstruct.annealing import CoarseModel
from hoarfrost.reconstruct.half_map_stage import IMAGES_A_STEP, HalfMapStage, with_poses
from hoarfrost.reconstruct.rivals import MANY, Rivals


@dataclass(frozen=True)
class SearchAstray:
    """How they are searched: at all shifts, for more rivals, and on a grid that is turned anew."""

    model: CoarseModel
    iterations: int
    seed: int

    def __call__(self, maps: HalfMapStage, state: State, name: str, rows: Int[Tensor, "k"]) -> State:
        """The state with the likeliest poses of these particles in the half-maps that ``maps`` made under ``name``."""
        stack, pair, weight = maps.stack, maps.pair(state, name), state[f"{name}.weight"]
        rivals = Rivals(self.model, MANY, self.iterations)
        band = Band(stack.band.box, int(state[f"{name}.limit"]))
        for half, of_half in maps.halves(state, rows):
            density = pair.density(half, band.limit, stack.device)
            turn = random_rotations(1, torch.Generator().manual_seed(self.seed + half))[0]
            bank = rivals.bank(density, band, weight, turn)
            for mine in of_half.split(IMAGES_A_STEP):
                images = stack.images(mine, band)
                present = state["rotations"][mine], state["shifts"][mine]
                found = rivals.search(images, bank, weight)
                contest = rivals.compete(images, density, weight, *present, found)
                state = with_poses(state, mine, *contest.best, contest.log_likelihood.amax(1))
        return state
