"""A global search in refined maps: particles in a wrong optimum find the right one, and every pose gets its confidence.

Every particle's present pose competes with its best few candidates far from it and one beside it, all refined in the
same way against the map of its half. The winner's likelihood is then compared with that of its rivals in the map of the
*other* half. An image is part of its own half's map, at its present pose, and finds its own noise there again: some
nats at that pose and none elsewhere, with few particles more than all that the image really says. With few particles an
image is therefore left out of the map that decides on it, with a fourth of its half; what even that map remembers of it
is measured, and taken off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.analysis.look_alikes import look_alikes
from hoarfrost.fourier.band import Band
from hoarfrost.optimise.loop import Stage, State
from hoarfrost.reconstruct.annealing import CoarseModel
from hoarfrost.reconstruct.calibration import SelfTest
from hoarfrost.reconstruct.contests import DOUBTFUL, Banks, Contests
from hoarfrost.reconstruct.frames import Motion
from hoarfrost.reconstruct.half_map_stage import IMAGES_A_STEP, HalfMapStage, chunk, with_poses
from hoarfrost.reconstruct.own_share import own_share
from hoarfrost.reconstruct.rivals import Rivals

SETTLED = 0.01
"""Share of particles that may still move to another optimum when a search is the last ..."""

SETTLED_IF_SURE, SURE = 0.05, 0.001
"""... and that may move if no larger share than the second is in doubt: such maps tell the optima apart already."""

SHELLS = 16, 24, 32
"""In which poses are told apart at most, round by round, and in the last of these from then on: where the maps go
further, so do faint images."""

MOST_SEARCHES = 12
"""Rounds of the search, all but the first only where particles keep moving ..."""

PATIENCE, HOPELESS = 5, 0.99
"""... and after so many rounds only if no larger share is in doubt than this: such maps do not come to tell poses apart."""


@dataclass(frozen=True)
class SearchAgain:
    """The second search, as a stage of a run: maps, chunks of particles, calibration.

    Where particles moved and some are in doubt there is another ``round``: a map in which pseudo-symmetric orientations
    are mixed tells them apart better after each, until nearly all particles sit in one of them.
    """

    maps: HalfMapStage
    model: CoarseModel
    rivals: int
    iterations: int
    seed: int
    round: int = 1
    _banks: Banks = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Unique name of the stage."""
        return f"search-again-{self.round}"

    @property
    def title(self) -> str:
        """What people read."""
        return "Searching all poses again in the refined maps"

    def needed(self, state: State) -> bool:
        """A first round always, another where the one before it left poses unsettled.

        That no fewer moved than before is no reason to stop: more do while mixed orientations come apart.
        """
        return self.round == 1 or self._unsettled(state, self.round - 1)

    @property
    def steps(self) -> int:
        """One step for the half-maps, then chunks of particles, then one for the calibration."""
        return 2 - (-len(self.maps.stack) // IMAGES_A_STEP)

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Make the half-maps, search one chunk in them, or find what the gaps are worth."""
        if step == 0:
            return self._begin(state), {}
        if step + 1 == self.steps:
            return self._end(state)
        return self._search(state, chunk(step - 1, len(self.maps.stack)))

    def _begin(self, state: State) -> State:
        fresh = {self._gap: torch.zeros(len(self.maps.stack)), self._moved: torch.tensor(0)}
        state = self.maps.prepare(state, self.name, decisive=True) | fresh
        state = state | {self._own_share: torch.tensor(own_share(self.maps, state, self.name, self.iterations))}
        return state if "look_alikes.turns" in state else state | self._look_alikes(state)

    def _search(self, state: State, rows: Int[Tensor, "b"]) -> tuple[State, Mapping[str, float]]:
        """Contests of these particles, by what decides on them."""
        contests, moved = self._contests(state), 0
        for half, mine, decisive in self.maps.decisive(state, self.name, rows):
            images = self.maps.stack.images(mine, contests.band)
            present = state["rotations"][mine], state["shifts"][mine]
            contest, gap = contests.between(half, decisive, images, present)
            moved += int((contest.winner > 0).sum())
            state = with_poses(state, mine, *contest.best, contest.log_likelihood.amax(1))
            state = state | {self._gap: state[self._gap].index_copy(0, mine, gap)}
        return state | {self._moved: state[self._moved] + moved}, {"moved": moved / len(rows)}

    def _end(self, state: State) -> tuple[State, Mapping[str, float]]:
        """Confidences, unless another round will say what the poses are worth."""
        used, gap = state["half"] > 0, state[self._gap]
        shares = {
            self._moved: state[self._moved] / used.sum(),
            f"{self.name}.doubtful": (gap[used] < DOUBTFUL).double().mean(),
        }
        state = state | shares
        if self._unsettled(state, self.round):
            found, figures = {}, {"moved": float(shares[self._moved])}
        else:
            found = {"confidence": self._calibrated(state, self._contests(state), gap)}
            figures = {"confidence": float(found["confidence"][used].mean())}
        self._banks.clear()
        kept = {key: value for key, value in self.maps.forget(state, self.name).items() if key != self._gap}
        return kept | found, figures

    @property
    def _gap(self) -> str:
        return f"{self.name}.gap"

    @property
    def _own_share(self) -> str:
        return f"{self.name}.own_share"

    @property
    def _moved(self) -> str:
        return f"{self.name}.moved"

    def _contests(self, state: State) -> Contests:
        stack = self.maps.stack
        motions = tuple(map(Motion, state["look_alikes.turns"], state["look_alikes.shifts"]))
        return Contests(
            self.maps.pair(state, self.name),
            Band(stack.band.box, int(state[f"{self.name}.limit"])),
            state[f"{self.name}.weight"],
            Rivals(self.model, self.rivals, self.iterations, motions),
            finer=self.round > 1,
            own_share=float(state[self._own_share]),
            frame=self.seed + 7919 * self.round,
            device=stack.device,
            banks=self._banks,
        )

    def _calibrated(self, state: State, contests: Contests, gap: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """How likely each pose is to be right, by its gap."""
        test = SelfTest(
            self.maps.stack,
            contests.pair,
            contests.weight,
            contests.band,
            self.model.symmetry,
            lambda rows: self.maps.decisive(state, self.name, rows),
            lambda batches: contests.between_unknown(batches, self.round),
        )
        generator = torch.Generator().manual_seed(self.seed + 7919 * self.round + self.steps)
        return test.calibration(state, gap, generator).probability(gap)

    def _unsettled(self, state: State, after: int) -> bool:
        moved, doubtful = (float(state.get(f"search-again-{after}.{what}", 0)) for what in ("moved", "doubtful"))
        if after >= MOST_SEARCHES or (after >= PATIENCE and doubtful > HOPELESS):
            return False
        return moved > (SETTLED_IF_SURE if doubtful <= SURE else SETTLED)

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
    """All rounds of the second search, the further ones in more shells of maps inside their outlines; none without rivals."""

    def compared(number: int) -> HalfMapStage:
        shells = min(SHELLS[min(number, len(SHELLS)) - 1], maps.limit)
        return replace(maps, limit=shells, outline=number > 1)

    return [
        SearchAgain(compared(number), model, rivals, 3, seed, number)
        for number in range(1, (MOST_SEARCHES if rivals else 0) + 1)
    ]
