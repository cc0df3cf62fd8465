"""A global search in refined maps: particles in a wrong optimum find the right one, and every pose gets its confidence.

Every particle's present pose competes with its best few candidates far from it, all refined in the same way against the
map of its half. The winner's likelihood is then compared with that of its rivals in the map of the *other* half. An
image is part of its own half's map, at its present pose, and finds its own noise there again: some nats at that pose and
none elsewhere, with few particles more than all that the image really says. With few particles an image is therefore
left out of the map that decides on it, with a fourth of its half.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.analysis.look_alikes import look_alikes
from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.optimise.loop import Stage, State
from hoarfrost.poses.likelihood import SliceBank
from hoarfrost.reconstruct.annealing import CoarseModel
from hoarfrost.reconstruct.calibration import SelfTest
from hoarfrost.reconstruct.frames import Motion
from hoarfrost.reconstruct.half_maps import HalfMapPair
from hoarfrost.reconstruct.refinement import IMAGES_A_STEP, HalfMapStage, chunk
from hoarfrost.reconstruct.rivals import Contest, Rivals
from hoarfrost.representations.voxel import FourierVolume

DOUBTFUL = 10.0
"""A pose is in doubt with a smaller gap than this ..."""

POOR = -1.5
"""... or if its image fits worse than this (see :meth:`hoarfrost.reconstruct.rivals.Contest.fit`)."""

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
class _Setting:
    """What all steps of a round search with."""

    pair: HalfMapPair
    band: Band
    weight: Float[Tensor, "m"]
    rivals: Rivals
    device: torch.device

    def density(self, half: int) -> FourierVolume:
        """The map of a half."""
        return self.pair.density(half, self.band.limit, self.device)


@dataclass(frozen=True)
class SearchAgain:
    """The second search, as a stage of a run: maps, chunks of particles, calibration.

    Where particles moved and some are in doubt there is another ``round``: a map in which pseudo-symmetric orientations
    are mixed tells them apart better after each, until nearly all particles sit in one of them. In faint images the right
    pose often is not among the best of a coarse grid: the further rounds seek those in doubt on a finer one.
    """

    maps: HalfMapStage
    model: CoarseModel
    rivals: int
    iterations: int
    seed: int
    round: int = 1
    _banks: dict[tuple[int, int], tuple[FourierVolume, SliceBank]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

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
        setting = self._setting(state)
        if step + 1 == self.steps:
            return self._end(state, setting)
        return self._search(state, setting, chunk(step - 1, len(self.maps.stack)))

    def _begin(self, state: State) -> State:
        fresh = {self._gap: torch.zeros(len(self.maps.stack)), self._moved: torch.tensor(0)}
        state = self.maps.prepare(state, self.name, decisive=True) | fresh
        return state if "look_alikes.turns" in state else state | self._look_alikes(state)

    def _search(self, state: State, setting: _Setting, rows: Int[Tensor, "b"]) -> tuple[State, Mapping[str, float]]:
        """Contests of these particles, by what decides on them."""
        stack, state, moved = self.maps.stack, dict(state), 0
        for half, mine, decisive in self.maps.decisive(state, self.name, rows):
            images, own = stack.images(mine, setting.band), decisive.density(half, setting.band.limit, stack.device)
            present = state["rotations"][mine], state["shifts"][mine]
            contest, gap = self._contest(setting, half, own, images, present)
            moved += int((contest.winner > 0).sum())
            rotations, shifts = contest.best
            for key, value in (
                ("rotations", rotations),
                ("shifts", shifts.double()),
                ("score", contest.log_likelihood.amax(1)),
                (self._gap, gap),
            ):
                state[key] = state[key].index_copy(0, mine, value)
        state[self._moved] = state[self._moved] + moved
        return state, {"moved": moved / len(rows)}

    def _end(self, state: State, setting: _Setting) -> tuple[State, Mapping[str, float]]:
        """Confidences, unless another round will say what the poses are worth."""
        gap, moved = state[self._gap], float(state[self._moved]) / len(self.maps.stack)
        state = {key: value for key, value in self.maps.forget(state, self.name).items() if key != self._gap}
        state[f"{self.name}.doubtful"] = ((gap < DOUBTFUL) & (state["half"] > 0)).sum()
        if self._unsettled(state, self.round):
            found, figures = {}, {"moved": moved}
        else:
            found = {"confidence": self._calibrated(state, setting, gap)}
            figures = {"confidence": float(found["confidence"][state["half"] > 0].mean())}
        self._banks.clear()
        return state | found, figures

    @property
    def _gap(self) -> str:
        return f"{self.name}.gap"

    @property
    def _moved(self) -> str:
        return f"{self.name}.moved"

    def _setting(self, state: State) -> _Setting:
        stack = self.maps.stack
        motions = tuple(map(Motion, state["look_alikes.turns"], state["look_alikes.shifts"]))
        return _Setting(
            self.maps.pair(state, self.name),
            Band(stack.band.box, int(state[f"{self.name}.limit"])),
            state[f"{self.name}.weight"],
            Rivals(self.model, self.rivals, self.iterations, motions),
            stack.device,
        )

    def _contest(
        self,
        setting: _Setting,
        half: int,
        own: FourierVolume,
        images: BandImages,
        present: tuple[Float[Tensor, "b 3 3"], Float[Tensor, "b 2"]] | None = None,
    ) -> tuple[Contest, Float[Tensor, "b"]]:
        """The contest of these images in a map of their own half, and gaps in that of the other.

        Rivals are sought near the present shifts, or of images without a pose at all of them; for particles that this
        leaves in doubt at all shifts, and after the first round on a finer grid. That may be of the half's whole map:
        where to look, unlike what decides, may be asked of a map that holds the image.
        """
        rivals, weight, other = setting.rivals, setting.weight, setting.density(3 - half)
        about = None if present is None else present[1]
        found = rivals.search(images, self._bank(setting, rivals, half, own), weight, about)
        rotations, shifts = found.best if present is None else present
        contest = rivals.compete(images, own, weight, rotations, shifts, found)
        gap = contest.gap(images, other, weight)
        doubtful = ((gap < DOUBTFUL) | (contest.fit(images, own, weight) < POOR)).nonzero()[:, 0]
        if len(doubtful):
            few, rivals = images[doubtful.to(images.vectors.device)], self._thorough(setting)
            found = rivals.search(few, self._bank(setting, rivals, half, setting.density(half)), weight)
            wider = rivals.compete(few, own, weight, rotations[doubtful], shifts[doubtful], found)
            contest = contest.replaced(doubtful, wider)
            gap = gap.index_copy(0, doubtful, wider.gap(few, other, weight))
        return contest, gap

    def _thorough(self, setting: _Setting) -> Rivals:
        """Rivals of poses in doubt."""
        return setting.rivals if self.round == 1 else setting.rivals.finer()

    def _bank(self, setting: _Setting, rivals: Rivals, half: int, density: FourierVolume) -> SliceBank:
        """The slices of a map of a half on the grid of rivals, turned differently in each round; kept for the next step."""
        key = half, rivals.model.orientations.order
        kept = self._banks.get(key)
        if kept is None or kept[0] is not density:
            frame = random_rotations(1, torch.Generator().manual_seed(self.seed + 7919 * self.round))[0]
            kept = self._banks[key] = density, rivals.bank(density, setting.band, setting.weight, frame)
        return kept[1]

    def _calibrated(self, state: State, setting: _Setting, gap: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """How likely each pose is to be right, by its gap."""
        test = SelfTest(
            self.maps.stack,
            setting.pair,
            setting.weight,
            setting.band,
            self.model.symmetry,
            lambda half, images: self._contest(setting, half, setting.density(half), images),
        )
        generator = torch.Generator().manual_seed(self.seed + 7919 * self.round + self.steps)
        return test.calibration(state, gap, generator).probability(gap)

    def _unsettled(self, state: State, after: int) -> bool:
        moved, doubtful = (
            float(state.get(f"search-again-{after}.{what}", 0)) / len(self.maps.stack) for what in ("moved", "doubtful")
        )
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
