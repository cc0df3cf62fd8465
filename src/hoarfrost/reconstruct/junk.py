"""Images without a particle, found by how the map of their half explains them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.analysis.junk import junk_probability
from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.optimise.loop import State
from hoarfrost.reconstruct.astray import SearchAstray
from hoarfrost.reconstruct.half_map_stage import IMAGES_A_STEP, HalfMapStage, chunk
from hoarfrost.reconstruct.one_class import MOSTLY_JUNK
from hoarfrost.representations.voxel import FourierVolume

LOW_SHELLS = 8
"""Shells in which the unexplained rest counts: what is no particle differs most at low resolution."""

MOST_SEARCHED = 0.01
"""Share of the particles that may be searched once more: where more are junk, those most like a particle."""


@dataclass(frozen=True)
class FindJunk:
    """The probability of every particle to be junk; where particles are few, by maps that do not hold them."""

    maps: HalfMapStage
    judge: Callable[[Float[Tensor, "n"], Float[Tensor, "n"]], Float[Tensor, "n"]] = junk_probability
    search: SearchAstray | None = None  # of particles that look like junk, which they may do for their poses
    name: str = "junk"
    title: str = "Looking for images without a particle"

    @property
    def steps(self) -> int:
        """One step for the half-maps, then chunks of particles, then one to judge them."""
        return 2 - (-len(self.maps.stack) // IMAGES_A_STEP)

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Make the half-maps, see how they explain one chunk, or judge."""
        if step == 0:
            state = self.maps.prepare(state, self.name, decisive=True)
            return state | {self._figures: torch.zeros(len(self.maps.stack), 2)}, {}
        if step + 1 < self.steps:
            return self._explained(state, chunk(step - 1, len(self.maps.stack))), {}
        state = self._judged(state)
        if self.search is not None:
            suspects = self._suspects(state)
            state = self._judged(self._explained(self.search(self.maps, state, self.name, suspects), suspects))
        kept = {key: value for key, value in self.maps.forget(state, self.name).items() if key != self._figures}
        return kept, {"junk": float((state["junk"] > MOSTLY_JUNK).double().mean())}

    def _explained(self, state: State, rows: Int[Tensor, "b"]) -> State:
        """The state with both figures of these particles at their poses."""
        stack, weight = self.maps.stack, state[f"{self.name}.weight"]
        band = Band(stack.band.box, int(state[f"{self.name}.limit"]))
        for half, mine, pair in self.maps.decisive(state, self.name, rows):
            density = pair.density(half, band.limit, stack.device)
            rotations, shifts = state["rotations"][mine], state["shifts"][mine]
            found = explained(stack.images(mine, band), density, rotations, shifts, weight).cpu()
            state = state | {self._figures: state[self._figures].index_copy(0, mine, found)}
        return state

    def _judged(self, state: State) -> State:
        used = (state["half"] > 0).nonzero()[:, 0]
        contrast, rest = state[self._figures][used].T
        junk = state.get("junk", torch.zeros(len(self.maps.stack)))
        return state | {"junk": junk.index_copy(0, used, self.judge(contrast, rest))}

    def _suspects(self, state: State) -> Int[Tensor, "k"]:
        used = state["half"] > 0
        rows = (used & (state["junk"] > MOSTLY_JUNK)).nonzero()[:, 0]
        contrast = state[self._figures][rows, 0]
        return rows[contrast.argsort(descending=True, stable=True)[: max(1, int(MOST_SEARCHED * int(used.sum())))]]

    @property
    def _figures(self) -> str:
        return f"{self.name}.figures"


def explained(
    images: BandImages,
    density: FourierVolume,
    rotations: Float[Tensor, "b 3 3"],
    shifts: Float[Tensor, "b 2"],
    weight: Float[Tensor, "m"],
) -> Float[Tensor, "b 2"]:
    """Contrast of every image in terms of the map, and the rest in the low shells in deviations of the noise.

    With the model ``P = C Y`` of an image ``X`` the contrast is ``sum v Re<X, P> / sum v |P|^2``, one where ``X`` is
    ``P`` and noise. The rest is ``sum v |X - P|^2`` over ``m`` coefficients, less its expectation ``m``, over
    ``sqrt(m)``.
    """
    model = images.transfer * density.project(rotations, images.band, images.frequency_matrix)
    data = images.centred(shifts).vectors
    weight = weight.to(images.transfer)
    power = (weight * model.abs().square()).sum(-1)
    cross = (weight * (data.real * model.real + data.imag * model.imag)).sum(-1)
    low = len(images.band.prefix(min(LOW_SHELLS, images.band.limit)))
    rest = (weight * (data - model).abs().square())[:, :low].sum(-1)
    return torch.stack([cross / power.clamp(min=1e-12), (rest - low) / low**0.5], dim=1)
