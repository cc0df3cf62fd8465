"""Half-maps of the present poses, for every particle the map of its own half, in a band that the FSC allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import reduce
from operator import add

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.data.dataset import BandImages, BandStack
from hoarfrost.fourier.band import Band
from hoarfrost.optimise.loop import State
from hoarfrost.reconstruct.backprojection import BackProjection
from hoarfrost.reconstruct.class_maps import FOLDS
from hoarfrost.reconstruct.frames import motion_between, moved
from hoarfrost.reconstruct.half_maps import HalfMapPair, half_sums, outlined, regularised_pair, sums_of_rows
from hoarfrost.representations.voxel import FourierVolume
from hoarfrost.types import Volume

IMAGES_A_STEP = 2048
"""Particles refined in one step; a checkpoint can be taken between steps."""

NOISE_SAMPLE = 1024
"""Particles of whose residuals the noise in each shell is taken."""

FEW = 10_000
"""Particles from which on an image's own share of its half's map has no say: a nat or so in 16 shells.

It is the number of coefficients over that of the images which meet in each, and so goes with the cube of the shells.
"""

TRUSTED_FSC = 0.143
"""The band ends at the first shell of the half-maps below this."""


OUTLINED_FROM = 16
"""Shells in which half-maps have to agree before their outlines are to be trusted."""


@dataclass(frozen=True)
class HalfMapStage:
    """What every refinement stage does first: half-maps of the present poses, the band they allow, the noise left.

    Where a ``source`` is given, it is asked for the maps and their band instead.
    """

    stack: BandStack
    limit: int
    symmetry: str
    mask: Volume | None = None  # where density is sought, on the grid of the images; a sphere without it
    source: Callable[[State], tuple[HalfMapPair, int]] | None = None
    outline: bool = False  # whether poses are compared with maps inside their own outlines
    anywhere: bool = False  # whether the halves may have settled on different ones of pseudo-symmetric orientations
    _pairs: dict[str, HalfMapPair] = field(default_factory=dict, init=False, repr=False, compare=False)

    def prepare(self, state: State, name: str, decisive: bool = False) -> State:
        """Half-maps, trusted band and inverse noise of the whitened coefficients, under ``name`` in the state.

        The halves are brought into one frame first: their poses change where they have drifted apart. Those that are to
        be ``decisive`` between far poses are, with few particles, made without each fold of them as well.
        """
        if self.source is None:
            state, pair = self._of_poses(state)
            trusted = trusted_limit(pair.fsc)
        else:
            pair, trusted = self.source(state)
        pair = self._outlined(pair, trusted)
        state = state | {
            f"{name}.first": pair.first,
            f"{name}.second": pair.second,
            f"{name}.fsc": pair.fsc,
            f"{name}.limit": torch.tensor(trusted),
        }
        state = state | {f"{name}.weight": self._inverse_noise(state, name)}
        return self._leave_out(state, name) if decisive and self._few else state

    def _of_poses(self, state: State) -> tuple[State, HalfMapPair]:
        extent, radius = self.stack.band.box * self.stack.pixel_size, float(state["radius"])
        first, second = half_sums(
            self.stack, state["rotations"], state["shifts"], state["half"], self.limit, self.symmetry
        )
        motion = motion_between(
            first, second, extent=extent, radius=radius, symmetry=self.symmetry, anywhere=self.anywhere
        )
        if motion is not None:
            state = moved(state, motion, self.stack.pixel_size)
            poses, rows = (state["rotations"], state["shifts"]), (state["half"] == 2).nonzero()[:, 0]
            second = sums_of_rows(self.stack, *poses, rows, self.limit, self.symmetry)
        return state, regularised_pair(first, second, extent=extent, radius=radius, mask=self.mask)

    def pair(self, state: State, name: str) -> HalfMapPair:
        """The half-maps that :meth:`prepare` left, the same object as long as the state holds the same maps."""
        first, second, kept = state[f"{name}.first"], state[f"{name}.second"], self._pairs.get(name)
        if kept is None or kept.first is not first or kept.second is not second:
            voxel_size = self.stack.band.box * self.stack.pixel_size / len(first)
            kept = self._pairs[name] = HalfMapPair(first, second, state[f"{name}.fsc"], voxel_size)
        return kept

    def forget(self, state: State, name: str) -> State:
        """The state without the maps; the FSC stays for the report."""
        parts = [name, *(_without(name, number) for number in range(FOLDS))]
        for part in parts:
            self._pairs.pop(part, None)
        gone = {f"{part}.{map_}" for part in parts for map_ in ("first", "second")}
        gone |= {f"{name}.weight", *(f"{part}.fsc" for part in parts[1:])}
        return {key: value for key, value in state.items() if key not in gone}

    def halves(self, state: State, rows: Int[Tensor, "b"]) -> list[tuple[int, Int[Tensor, "c"]]]:
        """These rows by half; a half that has none of them is left out."""
        halves = [(number, rows[state["half"][rows] == number]) for number in (1, 2)]
        return [(number, mine) for number, mine in halves if len(mine)]

    def decisive(
        self, state: State, name: str, rows: Int[Tensor, "b"]
    ) -> Iterator[tuple[int, Int[Tensor, "c"], HalfMapPair]]:
        """These rows by half, with the maps that decide between poses: where particles are few, such as lack them."""
        fold = folds(state)
        for half, mine in self.halves(state, rows):
            if not self._few:
                yield half, mine, self.pair(state, name)
                continue
            for number in fold[mine].unique().tolist():
                yield half, mine[fold[mine] == number], self.pair(state, _without(name, number))

    def _outlined(self, pair: HalfMapPair, trusted: int) -> HalfMapPair:
        if not self.outline or trusted < OUTLINED_FROM:
            return pair
        return outlined(pair, self.stack.band.box * self.stack.pixel_size / trusted)

    @property
    def _few(self) -> bool:
        return len(self.stack) < FEW * (self.limit / 16) ** 3

    def _leave_out(self, state: State, name: str) -> State:
        poses, fsc = (state["rotations"], state["shifts"]), state[f"{name}.fsc"]
        extent, radius, fold = self.stack.band.box * self.stack.pixel_size, float(state["radius"]), folds(state)

        def sums(half: int, number: int) -> BackProjection:
            rows = ((state["half"] == half) & (fold == number)).nonzero()[:, 0]
            return sums_of_rows(self.stack, *poses, rows, self.limit, self.symmetry)

        parts = [[sums(half, number) for number in range(FOLDS)] for half in (1, 2)]
        first, second = (reduce(add, mine) for mine in parts)
        trusted = int(state[f"{name}.limit"])

        def regularised(first: BackProjection, second: BackProjection) -> HalfMapPair:
            pair = regularised_pair(first, second, extent=extent, radius=radius, mask=self.mask)
            return self._outlined(pair, trusted)

        for number, (mine, other) in enumerate(zip(*parts, strict=True)):
            part = _without(name, number)
            state = state | {
                f"{part}.first": regularised(first - mine, second).first,
                f"{part}.second": regularised(first, second - other).second,
                f"{part}.fsc": fsc,
            }
        return state

    def _inverse_noise(self, state: State, name: str) -> Float[Tensor, "m"]:
        band = Band(self.stack.band.box, int(state[f"{name}.limit"]))
        pair = self.pair(state, name)
        used = (state["half"] > 0).nonzero()[:, 0]
        rows = used[torch.linspace(0, len(used) - 1, min(NOISE_SAMPLE, len(used))).long()]
        power = torch.zeros(band.limit + 1)
        for number, mine in self.halves(state, rows):
            density = pair.density(number, band.limit, self.stack.device)
            for part in mine.split(256):
                power += residual_power(self.stack.images(part, band), density, state, part).sum(0).cpu()
        return band.at_shells(1 / (power / len(rows)).clamp(min=0.5))


def residual_power(
    images: BandImages, density: FourierVolume, state: State, rows: Int[Tensor, "b"]
) -> Float[Tensor, "b shells"]:
    """Mean power in each shell of what the model leaves of each image."""
    rotations, shifts = state["rotations"][rows], state["shifts"][rows]
    model = images.transfer * density.project(rotations, images.band, images.frequency_matrix)
    return images.band.shell_mean((images.centred(shifts).vectors - model).abs().square())


def trusted_limit(fsc: Float[Tensor, "shells"]) -> int:
    """The last shell before the half-maps' FSC first falls below :data:`TRUSTED_FSC`; never below shell 6."""
    below = (fsc[1:] < TRUSTED_FSC).nonzero()
    last = len(fsc) - 1 if len(below) == 0 else int(below[0])
    return max(min(6, len(fsc) - 1), last)


def _without(name: str, fold: int) -> str:
    return f"{name}.without-{fold}"


def folds(state: State) -> Int[Tensor, "n"]:
    """The fold of every particle: those of a half take turns."""
    half = state["half"]
    return torch.where(half == 1, (half == 1).cumsum(0), (half == 2).cumsum(0)) % FOLDS


def with_poses(
    state: State,
    rows: Int[Tensor, "b"],
    rotations: Float[Tensor, "b 3 3"],
    shifts: Float[Tensor, "b 2"],
    score: Float[Tensor, "b"],
) -> State:
    """The state with these poses (shifts in pixels) and log-likelihoods of some particles in place of theirs."""
    values = {"rotations": rotations.double(), "shifts": shifts.double(), "score": score}
    return state | {key: state[key].index_copy(0, rows, value.cpu()) for key, value in values.items()}


def chunk(index: int, count: int) -> Int[Tensor, "b"]:
    """Rows of one step."""
    return torch.arange(index * IMAGES_A_STEP, min((index + 1) * IMAGES_A_STEP, count))
