"""Gold-standard refinement of poses: every particle against the map of its own half."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hoarfrost.fourier.band import Band
from hoarfrost.optimise.loop import State
from hoarfrost.poses.gauss_newton import GaussNewton
from hoarfrost.reconstruct.half_map_stage import IMAGES_A_STEP, HalfMapStage, chunk, with_poses


@dataclass(frozen=True)
class RefinePoses:
    """Gauss-Newton on rotation and shift at one band."""

    maps: HalfMapStage
    iterations: int
    label: str | None = None  # in place of the band in the stage's name

    @property
    def name(self) -> str:
        """Unique name of the stage."""
        return self.label or f"refine-{self.maps.limit}"

    @property
    def title(self) -> str:
        """What people read."""
        resolution = self.maps.stack.band.box * self.maps.stack.pixel_size / self.maps.limit
        return f"Refining poses to {resolution:.1f} Å"

    @property
    def steps(self) -> int:
        """One step for the half-maps, then chunks of particles."""
        return 1 - (-len(self.maps.stack) // IMAGES_A_STEP)

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Make the half-maps, or refine one chunk against them."""
        if step == 0:
            state = self.maps.prepare(state, self.name)
            return state, {"band": float(state[f"{self.name}.limit"])}
        rows = chunk(step - 1, len(self.maps.stack))
        band = Band(self.maps.stack.band.box, int(state[f"{self.name}.limit"]))
        pair, weight = self.maps.pair(state, self.name), state[f"{self.name}.weight"]
        for number, mine in self.maps.halves(state, rows):
            density = pair.density(number, band.limit, self.maps.stack.device)
            images = self.maps.stack.images(mine, band)
            refined = GaussNewton(weight, self.iterations).refine(
                images, density, state["rotations"][mine], state["shifts"][mine]
            )
            state = with_poses(state, mine, refined.rotations, refined.shifts, refined.log_likelihood)
        score = float(state["score"][rows].mean())
        if step + 1 == self.steps:
            state = self.maps.forget(state, self.name)
        return state, {"score": score, "band": float(band.limit)}
