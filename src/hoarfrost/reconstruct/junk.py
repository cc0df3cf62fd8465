"""Images without a particle, found by maps that do not hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from hoarfrost.analysis.junk import junk_probability
from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.optimise.loop import State
from hoarfrost.reconstruct.astray import SearchAstray
from hoarfrost.reconstruct.class_maps import ClassMaps, folds_of
from hoarfrost.reconstruct.half_map_stage import HalfMapStage
from hoarfrost.reconstruct.one_class import MOSTLY_JUNK
from hoarfrost.representations.voxel import FourierVolume

LOW_SHELLS = 8
"""Shells in which the unexplained rest counts: what is no particle differs most at low resolution."""

MOST_SEARCHED = 0.01
"""Share of the particles that may be searched once more: where more are junk, those most like a particle."""


@dataclass(frozen=True)
class FindJunk:
    """The probability of every particle to be junk; each half is judged by its own maps, made from other images.

    Once there are classes, an image is judged by the map of its own and among those of its own.
    """

    maps: HalfMapStage
    seed: int
    judge: Callable[[Float[Tensor, "n"], Float[Tensor, "n"]], Float[Tensor, "n"]] = junk_probability
    search: SearchAstray | None = None  # of particles that look like junk, which they may do for their poses
    name: str = "junk"
    title: str = "Looking for images without a particle"
    steps: int = 2

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Make the half-maps for their band and noise, or judge."""
        if step == 0:
            return self.maps.prepare(state, self.name), {}
        label = state["class"] - 1 if "class" in state else torch.zeros(len(self.maps.stack), dtype=torch.long)
        measure = self._measure(state, label)
        found = measure(state, (state["half"] > 0).nonzero()[:, 0], torch.zeros(len(label), 2))
        junk = self._judged(found, label)
        if self.search is not None:
            suspects = ((junk > MOSTLY_JUNK) & (state["half"] > 0)).nonzero()[:, 0]
            most = max(1, int(MOST_SEARCHED * int((state["half"] > 0).sum())))
            suspects = suspects[found[suspects, 0].argsort(descending=True, stable=True)[:most]]
            state = self.search(self.maps, state, self.name, suspects)
            junk = self._judged(measure(state, suspects, found), label)
        state = self.maps.forget(state, self.name) | {"junk": junk}
        return state, {"junk": float((junk > MOSTLY_JUNK).double().mean())}

    def _measure(
        self, state: State, label: Int[Tensor, "n"]
    ) -> Callable[[State, Int[Tensor, "k"], Float[Tensor, "n 2"]], Float[Tensor, "n 2"]]:
        """What renews both figures of some particles, at the poses of any state, by maps of the poses of this one."""
        stack, weight, weights = self.maps.stack, state[f"{self.name}.weight"], one_hot(label).float()
        band = Band(stack.band.box, int(state[f"{self.name}.limit"]))
        maps = ClassMaps(stack, band, float(state["radius"]), self.maps.symmetry)
        fold, densities = torch.zeros_like(label), {}
        for half, rows in self.maps.halves(state, torch.arange(len(label))):
            fold[rows] = folds_of(len(rows), self.seed + half)
            densities[half] = maps.without_folds(state, rows, weights[rows], fold[rows])

        def figures(images: BandImages, density: FourierVolume, rotations: Tensor, shifts: Tensor) -> Tensor:
            return explained(images, density, rotations, shifts, weight)

        def measure(state: State, rows: Int[Tensor, "k"], before: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
            found = before.clone()
            for half, mine in self.maps.halves(state, rows):
                measured = maps.measured(state, mine, fold[mine], densities[half], figures)
                found[mine] = measured[torch.arange(len(mine)), label[mine]]
            return found

        return measure

    def _judged(self, found: Float[Tensor, "n 2"], label: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
        junk = torch.zeros(len(label))
        for number in label.unique():
            mine = label == number
            junk[mine] = self.judge(found[mine, 0], found[mine, 1])
        return junk


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
