"""Rounds of soft assignment as stages: a search of all poses, then local grids whose spacing halves.

The state between rounds holds, beside the poses, the modes of every image and the sums of either half, from which the
next round makes its maps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from hoarfrost.data.dataset import BandStack
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.fourier.transforms import resample_centred
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.geometry.symmetry import point_group
from hoarfrost.optimise.loop import State
from hoarfrost.poses.likelihood import search_teraflop
from hoarfrost.poses.search import search_bank
from hoarfrost.reconstruct.annealing import WORK, CoarseModel, insert_assigned
from hoarfrost.reconstruct.backprojection import BackProjection, symmetrise
from hoarfrost.reconstruct.half_map_stage import (
    HalfMapStage,
    trusted_limit,
)
from hoarfrost.reconstruct.half_maps import HalfMapPair, regularised_pair, small_box
from hoarfrost.reconstruct.soft_assignment import LocalGrid, Modes, distinct, insert_spread, spread
from hoarfrost.representations.voxel import FourierVolume
from hoarfrost.types import Volume

IMAGES_A_STEP = 512

MODES = 6
"""Poses of an image that are followed."""

KEPT = 64
"""Orientations of the grid that an image is spread over in a search."""


@dataclass(frozen=True)
class SoftMaps:
    """Half-maps of the last round's sums."""

    stack: BandStack
    symmetry: str
    mask: Volume | None = None

    def __call__(self, state: State) -> tuple[HalfMapPair, int]:
        """The maps, and the band to which they agree."""
        operators = point_group(self.symmetry)
        first, second = (symmetrise(sums_of(self.stack, state, half), operators) for half in (1, 2))
        extent = self.stack.band.box * self.stack.pixel_size
        pair = regularised_pair(first, second, extent=extent, radius=float(state["radius"]), mask=self.mask)
        return pair, trusted_limit(pair.fsc)


def soft_grid(stack: BandStack, limit: int) -> SliceGrid:
    """The grid of a round's sums."""
    return SliceGrid(small_box(stack.band.box, limit), limit)


def sums_of(stack: BandStack, state: State, half: int) -> BackProjection:
    """What the last round left of a half."""
    return BackProjection(soft_grid(stack, int(state["soft.limit"])), state[f"soft.{half}"].to(stack.device))


def further(limit: int, furthest: int) -> int:
    """The band of the next maps: where the present ones agree and a quarter beyond, to see whether they might."""
    return min(furthest, max(limit + 3, round(1.25 * limit)))


@dataclass(frozen=True)
class SearchModes:
    """Every orientation and shift of a coarse grid for every image; it is back-projected at those it may have."""

    maps: HalfMapStage
    model: CoarseModel
    seed: int
    name: str = "search"
    title: str = "Searching all poses in the map"

    @property
    def steps(self) -> int:
        """One step for the maps, then chunks of particles."""
        return 1 - (-len(self.maps.stack) // IMAGES_A_STEP)

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Make the maps ready, or search one chunk in them."""
        stack = self.maps.stack
        if step == 0:
            state = self.maps.prepare(state, self.name)
            limit = int(state[f"{self.name}.limit"])
            # Nothing is known of the poses: all that the images show counts as noise, so that none is believed too early.
            sample = torch.linspace(0, len(stack) - 1, min(1000, len(stack))).long().unique()
            images = stack.images(sample, Band(stack.band.box, limit))
            power = images.band.shell_mean(images.vectors.abs().square().mean(0)).cpu()
            state = state | {f"{self.name}.weight": images.band.at_shells(1 / power.clamp(min=1.0))}
            empty = BackProjection.empty(soft_grid(stack, limit)).sums
            count = len(stack)
            return state | {
                "soft.limit": torch.tensor(limit),
                "soft.1": empty,
                "soft.2": empty,
                "modes.rotations": torch.eye(3, dtype=torch.float64).repeat(count, MODES, 1, 1),
                "modes.shifts": torch.zeros(count, MODES, 2, dtype=torch.float64),
                "modes.weight": torch.zeros(count, MODES),
            }, {"band": float(limit)}
        band = Band(stack.band.box, int(state[f"{self.name}.limit"]))
        pair, weight = self.maps.pair(state, self.name), state[f"{self.name}.weight"]
        rows, work, state = chunk(step, len(stack)), 0.0, dict(state)
        frame = random_rotations(1, torch.Generator().manual_seed(self.seed + step))[0]
        for half, mine in self.maps.halves(state, rows):
            images = stack.images(mine, band)
            search = self.model.search(weight, KEPT, frame)
            bank = search.bank(pair.density(half, band.limit, stack.device), band)
            found = search_bank(images, bank, self.model.shifts, weight, KEPT)
            posterior = torch.softmax(found.log_likelihood, dim=1)
            fresh = BackProjection.empty(soft_grid(stack, band.limit), stack.device)
            insert_assigned(fresh, images, bank, found, posterior, self.model.shifts, weight, self.model.symmetry)
            state[f"soft.{half}"] = state[f"soft.{half}"] + fresh.sums.cpu()
            candidates = bank.rotations[found.orientation].double().cpu()
            every = Modes(candidates, self.model.shifts[found.shift].double(), posterior)
            modes = distinct(every, self.model.orientations.spacing, self.model.symmetry)
            put_modes(state, mine, modes, found.log_likelihood[:, 0])
            work += search_teraflop(len(mine), len(self.model.shifts), bank)
        if step + 1 == self.steps:
            state = self.maps.forget(state, self.name)
        return state, {"score": float(state["score"][rows].mean()), WORK: work}


@dataclass(frozen=True)
class SpreadPoses:
    """Every image on a local grid about each of its modes; it is back-projected at all nodes that it may have."""

    maps: HalfMapStage
    furthest: int
    spacing: float  # degrees
    seed: int
    number: int

    @property
    def name(self) -> str:
        """Unique name of the stage."""
        return f"spread-{self.number}"

    @property
    def title(self) -> str:
        """What people read."""
        return f"Weighing poses {self.spacing:.2g} degrees apart, round {self.number}"

    @property
    def steps(self) -> int:
        """One step for the maps, then chunks of particles."""
        return 1 - (-len(self.maps.stack) // IMAGES_A_STEP)

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Make the maps ready, or spread one chunk."""
        stack = self.maps.stack
        if step == 0:
            state = self.maps.prepare(state, self.name)
            if "modes.weight" not in state:
                state = state | single_modes(state)
            limit = further(int(state[f"{self.name}.limit"]), self.furthest)
            empty = BackProjection.empty(soft_grid(stack, limit)).sums
            state = state | {"soft.limit": torch.tensor(limit), "soft.1": empty, "soft.2": empty}
            return state, {"band": float(state[f"{self.name}.limit"])}
        spacing = math.radians(self.spacing)
        band = Band(stack.band.box, int(state["soft.limit"]))
        pair, weight = self.maps.pair(state, self.name), state[f"{self.name}.weight"]
        # Beyond the trusted band the maps are next to nothing: images are added up there, and say nothing of the poses.
        weight = torch.cat([weight, torch.ones(len(band) - len(weight))]).to(stack.device)
        # Moves go as far as the turns take a point halfway out.
        step_px = max(0.25, 0.5 * spacing * float(state["radius"]) / stack.pixel_size)
        grid = LocalGrid.of(spacing, step_px, torch.Generator().manual_seed(self.seed + step)).to(stack.device)
        rows, state = chunk(step, len(stack)), dict(state)
        for half, mine in self.maps.halves(state, rows):
            density = _in_band(pair.density(half, int(state[f"{self.name}.limit"]), stack.device), band)
            own = Modes(*(state[f"modes.{key}"][mine].to(stack.device) for key in ("rotations", "shifts", "weight")))
            found = spread(stack.images(mine, band), density, own, grid, weight)
            sums = BackProjection(soft_grid(stack, band.limit), state[f"soft.{half}"].to(stack.device, copy=True))
            insert_spread(sums, found, band)
            state[f"soft.{half}"] = sums.sums.cpu()
            put_modes(state, mine, distinct(found.modes, 2 * spacing, self.maps.symmetry), found.log_likelihood)
        if step + 1 == self.steps:
            state = self.maps.forget(state, self.name)
        return state, {"score": float(state["score"][rows].mean()), "band": float(band.limit)}


def chunk(step: int, count: int) -> Int[Tensor, "b"]:
    """Rows of step 1, 2, ... of a round."""
    return torch.arange((step - 1) * IMAGES_A_STEP, min(step * IMAGES_A_STEP, count))


def put_modes(state: State, rows: Int[Tensor, "b"], modes: Modes, score: Tensor) -> None:
    """Enter the modes of these rows into a state, and the likeliest as their poses."""
    kept = modes.weight[:, :MODES]
    share = kept / kept.sum(1, keepdim=True)
    for key, value in (
        ("modes.rotations", modes.rotations[:, :MODES]),
        ("modes.shifts", modes.shifts[:, :MODES]),
        ("modes.weight", share),
        ("rotations", modes.rotations[:, 0]),
        ("shifts", modes.shifts[:, 0]),
        ("score", score),
    ):
        state[key] = state[key].index_copy(0, rows, value.to(state[key]))


def single_modes(state: State) -> State:
    """The present poses as the only modes."""
    count = len(state["rotations"])
    weight = torch.zeros(count, MODES)
    weight[:, 0] = 1.0
    return {
        "modes.rotations": state["rotations"][:, None].repeat(1, MODES, 1, 1),
        "modes.shifts": state["shifts"][:, None].repeat(1, MODES, 1),
        "modes.weight": weight,
    }


def _in_band(density: FourierVolume, band: Band) -> FourierVolume:
    """A map that can be read in a wider band than it was made for."""
    box = small_box(band.box, band.limit)
    if box == density.grid.box:
        return FourierVolume(density.volume, density.voxel_size, SliceGrid(box, band.limit))
    data = resample_centred(density.volume, box, (0, 1, 2))
    voxel_size = density.voxel_size * density.grid.box / box
    return FourierVolume.from_volume(Volume(data, voxel_size), band.limit)
