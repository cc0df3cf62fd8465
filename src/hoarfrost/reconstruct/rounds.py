"""The stages of a refinement that are its own: the given map, and rounds until neither resolution nor poses move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from hoarfrost.data.dataset import BandStack
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.transforms import resample_centred
from hoarfrost.geometry.rotations import geodesic_distance, random_rotations
from hoarfrost.optimise.loop import State
from hoarfrost.reconstruct.half_map_stage import HalfMapStage, trusted_limit
from hoarfrost.reconstruct.half_maps import HalfMapPair, inside, small_box, support
from hoarfrost.reconstruct.refine_poses import RefinePoses
from hoarfrost.reconstruct.soft_rounds import further
from hoarfrost.representations.voxel import FourierVolume
from hoarfrost.types import Volume

STILL = 0.1
"""Poses have settled when the particle's edge moves by less than this share of the resolution."""


@dataclass(frozen=True)
class GivenMap:
    """The user's map, low-passed, for both halves alike, on the scale of the whitened images."""

    stack: BandStack
    map: Volume  # of the images' box and pixel size
    limit: int
    mask: Volume | None
    seed: int

    def __call__(self, state: State) -> tuple[HalfMapPair, int]:
        """The map; its scale is that at which its projections have the power that images have beyond their noise."""
        box = small_box(self.stack.band.box, self.limit)
        extent = self.stack.band.box * self.stack.pixel_size
        within = support(box, extent, float(state["radius"]), self.mask)
        data = inside(resample_centred(self.map.data, box, (0, 1, 2)), within)
        density = FourierVolume.from_volume(Volume(data.to(self.stack.device), extent / box), self.limit)
        band = Band(self.stack.band.box, self.limit)
        generator = torch.Generator().manual_seed(self.seed)
        rows = torch.randperm(len(self.stack), generator=generator)[:1000].sort().values
        images = self.stack.images(rows, band)
        views = random_rotations(len(rows), generator).to(self.stack.device)
        model = images.transfer * density.project(views, band, images.frequency_matrix)
        signal = (images.vectors.abs().square().mean(0).sum() - len(band)).clamp(min=0.02 * len(band))
        scaled = data * float((signal / model.abs().square().mean(0).sum().clamp(min=1e-20)).sqrt())
        pair = HalfMapPair(scaled, scaled, torch.ones(self.limit + 1), extent / box)
        return pair, self.limit


@dataclass(frozen=True)
class TrustSoft:
    """The band in which the rounds of Gauss-Newton begin: that to which the last half-maps agreed."""

    least: int
    name: str = "trust"
    title: str = "Taking stock"
    steps: int = 1

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Find the last curve."""
        numbers = [int(key.split("-")[1].split(".")[0]) for key in state if key.startswith("spread-")]
        trusted = self.least
        if numbers:
            trusted = max(trusted, trusted_limit(state[f"spread-{max(numbers)}.fsc"]))
        return state | {"trusted": torch.tensor(trusted), "settled": torch.tensor(False)}, {"band": float(trusted)}


@dataclass(frozen=True)
class Round:
    """Half-maps of the present poses and Gauss-Newton against them, unless the poses have settled.

    After a second search, or with refined optics, they may move again: a round after either is always done.
    """

    stack: BandStack
    number: int
    furthest: int
    symmetry: str
    mask: Volume | None
    iterations: int
    refined_optics: bool = False

    @property
    def name(self) -> str:
        """Unique name of the stage."""
        return f"optics-round-{self.number}" if self.refined_optics else f"round-{self.number}"

    @property
    def title(self) -> str:
        """What people read."""
        return f"Refining poses{' with the optics found' if self.refined_optics else ''}, round {self.number}"

    @property
    def steps(self) -> int:
        """One step for the half-maps, then chunks of particles."""
        return self._refinement(self.furthest).steps

    def needed(self, state: State) -> bool:
        """Until the poses have settled."""
        always = 1 if self.refined_optics else 2
        return self.number <= always or not bool(state["settled"])

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Make the half-maps or refine a chunk; at the end, ask whether anything still moves."""
        if step == 0:
            limit = further(int(state["trusted"]), self.furthest)
            state = state | {
                "round.limit": torch.tensor(limit),
                "before.rotations": state["rotations"],
                "before.shifts": state["shifts"],
            }
        state, values = self._refinement(int(state["round.limit"])).run(state, step)
        if step + 1 == self.steps:
            state = self._look_back(state)
        return state, values

    def _refinement(self, limit: int) -> RefinePoses:
        maps = HalfMapStage(self.stack, limit, self.symmetry, self.mask, outline=True)
        return RefinePoses(maps, self.iterations, self.name)

    def _look_back(self, state: State) -> State:
        trusted, before = int(state[f"{self.name}.limit"]), int(state["trusted"])
        turn = geodesic_distance(state["rotations"], state["before.rotations"]).median()
        move = torch.linalg.vector_norm(state["shifts"] - state["before.shifts"], dim=-1).median()
        # A wavelength at the end of the band, in pixels.
        resolution = self.stack.band.box / trusted
        still = STILL * resolution
        at_edge = float(turn) * float(state["radius"]) / self.stack.pixel_size
        settled = trusted <= before and at_edge < still and float(move) < still
        return state | {
            "settled": torch.tensor(settled),
            "trusted": torch.tensor(max(trusted, before) if settled else trusted),
            "rounds": state.get("rounds", torch.tensor(0)) + 1,
        }
