"""Orientations that look alike, told apart in the widest band: what breaks a pseudo-symmetry may be small."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from hoarfrost.fourier.band import Band
from hoarfrost.optimise.loop import State
from hoarfrost.reconstruct.annealing import CoarseModel
from hoarfrost.reconstruct.frames import Motion
from hoarfrost.reconstruct.half_map_stage import IMAGES_A_STEP, HalfMapStage, chunk
from hoarfrost.reconstruct.own_share import own_share
from hoarfrost.reconstruct.rivals import Contest, Rivals


@dataclass(frozen=True)
class SettleLookAlikes:
    """Every pose against those in which the map looks nearly as it does there; only where there are such."""

    maps: HalfMapStage
    model: CoarseModel
    iterations: int
    name: str = "look-alikes"
    title: str = "Telling orientations apart that look alike"

    def needed(self, state: State) -> bool:
        """Whether the second search found the map to look like itself after some turn."""
        return len(state.get("look_alikes.turns", ())) > 0

    @property
    def steps(self) -> int:
        """One step for the half-maps, then chunks of particles."""
        return 1 - (-len(self.maps.stack) // IMAGES_A_STEP)

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Make the half-maps, or decide on one chunk."""
        if step == 0:
            state = self.maps.prepare(state, self.name, decisive=True)
            ahead = own_share(self.maps, state, self.name, self.iterations)
            return state | {f"{self.name}.own_share": torch.tensor(ahead)}, {}
        stack, weight = self.maps.stack, state[f"{self.name}.weight"]
        band = Band(stack.band.box, int(state[f"{self.name}.limit"]))
        motions = tuple(map(Motion, state["look_alikes.turns"], state["look_alikes.shifts"]))
        rivals = Rivals(self.model, 0, self.iterations, motions)
        ahead = float(state[f"{self.name}.own_share"])
        rows, moved, state = chunk(step - 1, len(stack)), 0, dict(state)
        for half, mine, decisive in self.maps.decisive(state, self.name, rows):
            density = decisive.density(half, band.limit, stack.device)
            rotations, shifts = state["rotations"][mine], state["shifts"][mine]
            present = Contest(rotations[:, None], shifts[:, None], torch.zeros(len(mine), 1))
            contest = rivals.compete(stack.images(mine, band), density, weight, rotations, shifts, present, ahead)
            # The others have better poses than maps of fewer images, and with the noise around them, could give.
            moving = (contest.winner > 0).nonzero()[:, 0]
            moved += len(moving)
            rotations, shifts = (one[moving] for one in contest.best)
            state["rotations"] = state["rotations"].index_copy(0, mine[moving], rotations)
            state["shifts"] = state["shifts"].index_copy(0, mine[moving], shifts.double())
        if step + 1 == self.steps:
            state = self.maps.forget(state, self.name)
        return state, {"moved": moved / len(rows)}
