"""A global search in refined maps: particles in a wrong optimum find the right one, and every pose gets its confidence.

Every particle's present pose competes with its best few candidates far from it, all refined in the same way against the
map of its half. The winner's likelihood is then compared with that of its rivals in the map of the *other* half. An
image is part of its own half's map, at its present pose, and finds its own noise there again: some nats at that pose and
none elsewhere, with few particles more than all that the image really says. With few particles an image is therefore
left out of the map that decides on it, with a fourth of its half.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.analysis.look_alikes import look_alikes
from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.optimise.loop import Stage, State
from hoarfrost.reconstruct.annealing import CoarseModel
from hoarfrost.reconstruct.calibration import SelfTest
from hoarfrost.reconstruct.frames import Motion
from hoarfrost.reconstruct.refinement import IMAGES_A_STEP, HalfMapStage, chunk
from hoarfrost.reconstruct.rivals import Contest, Rivals
from hoarfrost.representations.voxel import FourierVolume

DOUBTFUL = 10.0
"""A pose is in doubt with a smaller gap than this ..."""

POOR = -1.5
"""... or if its image fits worse than this (see :meth:`hoarfrost.reconstruct.rivals.Contest.fit`)."""

SETTLED = 0.02
"""Share of particles that may still move to another optimum when a search is the last."""

MOST_SEARCHES = 5
"""Rounds of the search, the last four only where particles keep moving."""


@dataclass(frozen=True)
class SearchAgain:
    """The second search, as a stage of a run: maps, chunks of particles, calibration.

    Where many particles moved there is another ``round``: a map in which pseudo-symmetric orientations are mixed tells
    them apart better after each, until nearly all particles sit in one of them.
    """

    maps: HalfMapStage
    model: CoarseModel
    rivals: int
    iterations: int
    seed: int
    round: int = 1

    @property
    def name(self) -> str:
        """Unique name of the stage."""
        return f"search-again-{self.round}"

    @property
    def title(self) -> str:
        """What people read."""
        return "Searching all poses again in the refined maps"

    def needed(self, state: State) -> bool:
        """A first round always, another where the one before it moved many particles.

        That no fewer moved than before is no reason to stop: more do while mixed orientations come apart.
        """
        before = f"search-again-{self.round - 1}.moved"
        return self.round == 1 or float(state.get(before, torch.tensor(0.0))) > SETTLED * len(self.maps.stack)

    @property
    def steps(self) -> int:
        """One step for the half-maps, then chunks of particles, then one for the calibration."""
        return 2 - (-len(self.maps.stack) // IMAGES_A_STEP)

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Make the half-maps, search one chunk in them, or find what the gaps are worth."""
        if step == 0:
            fresh = {f"{self.name}.gap": torch.zeros(len(self.maps.stack)), f"{self.name}.moved": torch.tensor(0)}
            state = self.maps.prepare(state, self.name, decisive=True) | fresh
            return state if "look_alikes.turns" in state else state | self._look_alikes(state), {}
        stack, pair, weight = self.maps.stack, self.maps.pair(state, self.name), state[f"{self.name}.weight"]
        band = Band(stack.band.box, int(state[f"{self.name}.limit"]))
        motions = tuple(map(Motion, state["look_alikes.turns"], state["look_alikes.shifts"]))
        rivals = Rivals(self.model, self.rivals, self.iterations, motions)
        generator = torch.Generator().manual_seed(self.seed + 7919 * self.round + step)
        state = dict(state)
        if step + 1 == self.steps:
            gap = state.pop(f"{self.name}.gap")
            calibration = SelfTest(stack, pair, weight, band, rivals).calibration(state, gap, generator)
            confidence = calibration.probability(gap)
            mean = float(confidence[state["half"] > 0].mean())
            return self.maps.forget(state, self.name) | {"confidence": confidence}, {"confidence": mean}
        rows = chunk(step - 1, len(stack))
        frame, moved = random_rotations(1, generator)[0], 0
        for half, mine, decisive in self.maps.decisive(state, self.name, rows):
            images = stack.images(mine, band)
            own, other = (
                maps.density(number, band.limit, stack.device) for maps, number in ((decisive, half), (pair, 3 - half))
            )
            contest, gap = self._contest(rivals, images, (own, other), weight, state, mine, frame)
            moved += int((contest.winner > 0).sum())
            rotations, shifts = contest.best
            for key, value in (
                ("rotations", rotations),
                ("shifts", shifts.double()),
                ("score", contest.log_likelihood.amax(1)),
                (f"{self.name}.gap", gap),
            ):
                state[key] = state[key].index_copy(0, mine, value)
        state[f"{self.name}.moved"] = state[f"{self.name}.moved"] + moved
        return state, {"moved": moved / len(rows)}

    def _contest(
        self,
        rivals: Rivals,
        images: BandImages,
        maps: tuple[FourierVolume, FourierVolume],
        weight: Float[Tensor, "m"],
        state: State,
        rows: Int[Tensor, "b"],
        frame: Float[Tensor, "3 3"],
    ) -> tuple[Contest, Float[Tensor, "b"]]:
        """Candidates in the map of these particles' own half, and gaps in that of the other.

        They are sought near the present shifts, and at all shifts for particles that this leaves in doubt.
        """
        own, other = maps
        rotations, shifts = state["rotations"][rows], state["shifts"][rows]
        bank = rivals.bank(own, images.band, weight, frame)
        found = rivals.search(images, bank, weight, shifts)
        contest = rivals.compete(images, own, weight, rotations, shifts, found)
        gap = contest.gap(images, other, weight)
        doubtful = ((gap < DOUBTFUL) | (contest.fit(images, own, weight) < POOR)).nonzero()[:, 0]
        if len(doubtful):
            few = images[doubtful.to(images.vectors.device)]
            found = rivals.search(few, bank, weight)
            wider = rivals.compete(few, own, weight, rotations[doubtful], shifts[doubtful], found)
            contest = contest.replaced(doubtful, wider)
            gap = gap.index_copy(0, doubtful, wider.gap(few, other, weight))
        return contest, gap

    def _look_alikes(self, state: State) -> State:
        """The pseudo-symmetry of the map, for all rounds; shifts in pixels."""
        found = look_alikes(self.maps.pair(state, self.name).mean, self.model.symmetry)
        turns = [one.rotation.double() for one in found]
        shifts = [one.shift.double() / self.maps.stack.pixel_size for one in found]
        return {
            "look_alikes.turns": torch.stack(turns) if found else torch.zeros(0, 3, 3, dtype=torch.float64),
            "look_alikes.shifts": torch.stack(shifts) if found else torch.zeros(0, 3, dtype=torch.float64),
        }


def searches(maps: HalfMapStage, model: CoarseModel, rivals: int, seed: int) -> list[Stage]:
    """All rounds of the second search; none without ``rivals``."""
    return [SearchAgain(maps, model, rivals, 3, seed, n + 1) for n in range(MOST_SEARCHES if rivals else 0)]
