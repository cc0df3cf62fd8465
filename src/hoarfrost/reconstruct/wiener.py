"""Back-projection as a method: Wiener's division of the sums, shell by shell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hoarfrost.analysis.fsc import HalfMapFSC
from hoarfrost.optimise.loop import State
from hoarfrost.reconstruct.backprojection import FoldedSums
from hoarfrost.reconstruct.final_maps import filtered_map
from hoarfrost.reconstruct.fits import DensityFit, FitSetting
from hoarfrost.reconstruct.half_maps import inside, inverse_signal_power, support
from hoarfrost.representations.voxel import FourierVolume
from hoarfrost.types import Volume


@dataclass(frozen=True)
class WienerFit:
    """The map that the sums give by themselves, a :class:`~hoarfrost.reconstruct.fits.DensityFit` of one step.

    Against poses and contrast it stands regularised by the signal-to-noise ratio that the FSC shows; half-maps are
    validated without.
    """

    name: str = "backprojection"
    steps: int = 1

    def begin(self, sums: FoldedSums, setting: FitSetting, previous: State | None) -> State:
        """Nothing: the division needs no start."""
        return {}

    def run(self, sums: FoldedSums, setting: FitSetting, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Divide."""
        box = sums.grid.box
        volume = sums.volume(inverse_signal_power(setting.fsc, sums.weight_per_shell))
        within = support(box, box * setting.voxel_size, setting.radius, setting.mask).to(volume)
        return {"volume": inside(volume, within)}, {}

    def density(self, state: State, setting: FitSetting) -> FourierVolume:
        """The regularised map inside the sphere or the mask."""
        return FourierVolume.from_volume(Volume(state["volume"], setting.voxel_size), len(setting.fsc) - 1)

    def joined(self) -> DensityFit | None:
        """The sums of all images are those of the halves added up."""
        return None

    def half_map(self, sums: FoldedSums, setting: FitSetting, state: State) -> Volume:
        """The map without a regulariser."""
        return Volume(sums.volume(0.0), setting.voxel_size)

    def final_map(
        self, halves: tuple[FoldedSums, FoldedSums], setting: FitSetting, state: State, fsc: HalfMapFSC
    ) -> Volume:
        """The Wiener filter of all images."""
        first, second = halves
        return Volume(
            filtered_map(first + second, fsc, (first.weight_per_shell, second.weight_per_shell)), setting.voxel_size
        )
