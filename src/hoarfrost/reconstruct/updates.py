"""What a reconstruction finds out about particles between two readings: better poses, and how strongly each shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.fourier.band import Band
from hoarfrost.optimise.loop import State
from hoarfrost.poses.contrast import Contrast, contrast, shrunk
from hoarfrost.reconstruct.fits import DensityFit, FitSetting
from hoarfrost.reconstruct.half_fits import setting_of, state_of
from hoarfrost.reconstruct.half_map_stage import IMAGES_A_STEP, HalfMapStage, chunk, trusted_limit
from hoarfrost.reconstruct.half_maps import HalfMapPair, small_box


@dataclass(frozen=True)
class FittedMaps:
    """The present densities of the halves, in the band to which their plain maps agree: a source of half-maps."""

    fit: DensityFit
    setting: FitSetting

    def __call__(self, state: State) -> tuple[HalfMapPair, int]:
        """The maps and the last shell of the band."""
        limit = trusted_limit(state["fsc"])
        box, setting = small_box(self.setting.box, limit), setting_of(self.setting, state)
        first, second = (self.fit.density(state_of(state, half), setting).to_volume(box) for half in (1, 2))
        # Slices of a map with the same values on fewer voxels are weaker by the square of their number.
        scale = (setting.box / box) ** 2
        return HalfMapPair(first.data * scale, second.data * scale, state["fsc"], first.voxel_size), limit


@dataclass(frozen=True)
class MeasureContrast:
    """How strongly each particle shows in the density of its half; what the noise explains of the scatter is taken out."""

    maps: HalfMapStage
    epoch: int
    title: str = "Measuring the contrast of the particles"

    @property
    def name(self) -> str:
        """Unique name of the stage."""
        return f"contrast-{self.epoch}"

    @property
    def steps(self) -> int:
        """One step for the maps, then chunks of particles."""
        return 1 - (-len(self.maps.stack) // IMAGES_A_STEP)

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Prepare the maps, or measure one chunk; the last step leaves ``contrast`` in the state."""
        stack, key = self.maps.stack, f"{self.name}.measured"
        if step == 0:
            state = self.maps.prepare(state, self.name)
            return state | {key: torch.ones(len(stack), 2)}, {}
        band = Band(stack.band.box, int(state[f"{self.name}.limit"]))
        pair, weight = self.maps.pair(state, self.name), state[f"{self.name}.weight"].to(stack.device)
        measured = state[key]
        for half, rows in self.maps.halves(state, chunk(step - 1, len(stack))):
            density = pair.density(half, band.limit, stack.device)
            found = contrast(
                stack.images(rows, band), density, state["rotations"][rows], state["shifts"][rows].float(), weight
            )
            measured = measured.index_copy(0, rows, torch.stack([found.scale, found.deviation], dim=1).cpu())
        state = state | {key: measured}
        if step + 1 < self.steps:
            return state, {}
        state = {name: value for name, value in self.maps.forget(state, self.name).items() if name != key}
        scale = self._settled(measured, state["half"])
        return state | {"contrast": scale}, {"spread": float(scale.std())}

    def _settled(self, measured: Float[Tensor, "n 2"], half: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Scales drawn to their group's mean, of mean 1 in each half; 1 for particles of neither half."""
        result = torch.ones(len(measured))
        for number in (1, 2):
            rows = (half == number).nonzero()[:, 0]
            scale = shrunk(Contrast(*measured[rows].unbind(1)), self.maps.stack.optics.group[rows])
            # A particle that shows not at all, or as its own negative, is no sign of what the others look like.
            scale = scale.clamp(min=0)
            result[rows] = scale / scale.mean().clamp(min=1e-6)
        return result
