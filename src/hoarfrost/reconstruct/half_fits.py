"""The stages in which the sums of the halves become densities, each half for itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hoarfrost.analysis.fsc import validate_half_maps
from hoarfrost.data.dataset import CPU
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.geometry.symmetry import point_group
from hoarfrost.optimise.loop import State
from hoarfrost.reconstruct.backprojection import BackProjection, FoldedSums, symmetrise
from hoarfrost.reconstruct.fits import DensityFit, FitSetting
from hoarfrost.reconstruct.half_maps import inside, support
from hoarfrost.types import HalfMaps, Volume

ALL = 0
"""In place of the number of a half: all images."""


@dataclass(frozen=True)
class HalfSums:
    """The sums of the present state, folded and symmetrised; made once as long as the state holds the same."""

    grid: SliceGrid
    symmetry: str
    device: torch.device = CPU
    _kept: dict[int, tuple[tuple[Tensor, Tensor], FoldedSums]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def of(self, state: State, half: int) -> FoldedSums:
        """The sums of half 1, of half 2 or of all images."""
        present, kept = (state["sums.1"], state["sums.2"]), self._kept.get(half)
        if kept is not None and all(one is other for one, other in zip(kept[0], present, strict=True)):
            return kept[1]
        if half == ALL:
            folded = self.of(state, 1) + self.of(state, 2)
        else:
            own = BackProjection(self.grid, state[f"sums.{half}"].to(self.device))
            folded = symmetrise(own, point_group(self.symmetry)).folded()
        self._kept[half] = present, folded
        return folded

    def forget(self) -> None:
        """Let go of what was kept."""
        self._kept.clear()


@dataclass(frozen=True)
class CompareHalves:
    """The FSC of the plain maps of the two halves: how far the images determine a map, by whatever method."""

    sums: HalfSums
    setting: FitSetting
    epoch: int
    title: str = "Comparing the halves"
    steps: int = 1

    @property
    def name(self) -> str:
        """Unique name of the stage."""
        return f"compare-{self.epoch}"

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Leave the curve, corrected for the mask, as ``fsc`` in the state."""
        grid, voxel_size = self.sums.grid, self.setting.voxel_size
        within = support(grid.box, grid.box * voxel_size, self.setting.radius, self.setting.mask)
        halves = HalfMaps(
            *(Volume(inside(self.sums.of(state, half).volume(0.0).cpu(), within), voxel_size) for half in (1, 2))
        )
        fsc = validate_half_maps(halves, Volume(within, voxel_size), self.setting.seed)
        curve = fsc.corrected[: grid.limit + 1].float()
        return state | {"fsc": curve}, {"resolution": fsc.resolution()}


@dataclass(frozen=True)
class FitHalf:
    """Fit the density of one half (or of all images), from where the half stood an epoch ago."""

    fit: DensityFit
    sums: HalfSums
    setting: FitSetting
    half: int
    epoch: int

    @property
    def name(self) -> str:
        """Unique name of the stage."""
        return f"fit-{self.epoch}-{self.half}" if self.half != ALL else "fit-all"

    @property
    def title(self) -> str:
        """What people read."""
        return "Fitting the density of " + (f"half {self.half}" if self.half != ALL else "all images")

    @property
    def steps(self) -> int:
        """Those of the fit."""
        return self.fit.steps

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Do one step of the fit."""
        # Seeds of halves, epochs and runs differ: nothing random is shared.
        seed = 100 * (self.setting.seed + 1) + 10 * self.half + self.epoch
        sums, setting = self.sums.of(state, self.half), replace(setting_of(self.setting, state), seed=seed)
        own = self._on_device(state, self.half)
        if step == 0:
            previous = self._on_device(state, 1) if self.half == ALL else own
            own = self.fit.begin(sums, setting, previous or None)
        own, values = self.fit.run(sums, setting, own, step)
        if step + 1 == self.steps and self.half != 1:
            self.sums.forget()
        return put_state(state, self.half, own), values

    def _on_device(self, state: State, half: int) -> State:
        return {key: value.to(self.sums.device) for key, value in state_of(state, half).items()}


def setting_of(setting: FitSetting, state: State) -> FitSetting:
    """The setting with the agreement of the halves as it is at present."""
    return replace(setting, fsc=state["fsc"]) if "fsc" in state else setting


def state_of(state: State, half: int) -> State:
    """The state of a half's fit alone; empty before its first step."""
    prefix = _prefix(half)
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def put_state(state: State, half: int, own: State) -> State:
    """A state in which that of a half's fit is another."""
    prefix = _prefix(half)
    others = {key: value for key, value in state.items() if not key.startswith(prefix)}
    return others | {prefix + key: value.cpu() for key, value in own.items()}


def _prefix(half: int) -> str:
    return f"fit.{half}."
