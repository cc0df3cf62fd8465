"""Images without a particle, found by maps that do not hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from hoarfrost.analysis.junk import junk_probability
from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.optimise.loop import State
from hoarfrost.reconstruct.class_maps import ClassMaps, folds_of
from hoarfrost.reconstruct.refinement import HalfMapStage
from hoarfrost.representations.voxel import FourierVolume

LOW_SHELLS = 8
"""Shells in which the unexplained rest counts: what is no particle differs most at low resolution."""


@dataclass(frozen=True)
class FindJunk:
    """The probability of every particle to be junk; each half is judged by its own maps, made from other images.

    Once there are classes, an image is judged by the map of its own and among those of its own.
    """

    maps: HalfMapStage
    seed: int
    judge: Callable[[Float[Tensor, "n"], Float[Tensor, "n"]], Float[Tensor, "n"]] = junk_probability
    name: str = "junk"
    title: str = "Looking for images without a particle"
    steps: int = 2

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Make the half-maps for their band and noise, or judge."""
        if step == 0:
            return self.maps.prepare(state, self.name), {}
        stack, weight = self.maps.stack, state[f"{self.name}.weight"]
        maps = ClassMaps(
            stack, Band(stack.band.box, int(state[f"{self.name}.limit"])), float(state["radius"]), self.maps.symmetry
        )

        def figures(images: BandImages, density: FourierVolume, rotations: Tensor, shifts: Tensor) -> Tensor:
            return explained(images, density, rotations, shifts, weight)

        label = state["class"] - 1 if "class" in state else torch.zeros(len(stack), dtype=torch.long)
        weights = one_hot(label).float()
        found = torch.zeros(len(stack), 2)
        for number in (1, 2):
            rows = (state["half"] == number).nonzero()[:, 0]
            fold = folds_of(len(rows), self.seed + number)
            compared = maps.compared(state, rows, weights[rows], fold, figures)
            found[rows] = compared[torch.arange(len(rows)), label[rows]]
        junk = torch.zeros(len(stack))
        for number in label.unique():
            mine = label == number
            junk[mine] = self.judge(found[mine, 0], found[mine, 1])
        state = self.maps.forget(state, self.name) | {"junk": junk}
        return state, {"junk": float((junk > 0.5).double().mean())}


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
