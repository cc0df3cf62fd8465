"""After the starts: which of them is best, whether they agree, and where the axes of the particle's symmetry lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.analysis.fsc import fourier_shell_correlation
from hoarfrost.analysis.map_alignment import align_maps
from hoarfrost.analysis.symmetry_axes import find_symmetry_axes
from hoarfrost.data.dataset import CPU, BandStack
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.geometry.symmetry import point_group
from hoarfrost.kernels.threads import map_parts
from hoarfrost.optimise.loop import State
from hoarfrost.physics.masks import estimate_diameter
from hoarfrost.poses.search import search_bank
from hoarfrost.reconstruct.annealing import CoarseModel, agreement_of_starts
from hoarfrost.reconstruct.backprojection import BackProjection, symmetrise, turned_sums
from hoarfrost.representations.voxel import FourierVolume
from hoarfrost.types import Volume

MARGIN = 1.1
"""Room that the sphere of a reconstruction leaves around the particle."""


@dataclass(frozen=True)
class ChooseStart:
    """Score the maps of all starts on the same images at equal settings, and lay them over the best.

    Leaves the number of the best start, the scores, and how far the others agree with it: the mean Fourier shell
    correlation of the maps over the band of the starts, the one turned and moved onto the other, in either hand.
    """

    stack: BandStack
    model: CoarseModel
    limit: int
    starts: int
    diameter: float | None  # Å; estimated from the chosen map where not given
    seed: int
    images: int = 768
    unless: float | None = None  # not again if two of those compared before agree by as much
    title: str = "Comparing the starts"
    steps: int = 1

    @property
    def name(self) -> str:
        """Unique name of the stage."""
        return "choose" if self.unless is None else f"choose-of-{self.starts}"

    def needed(self, state: State) -> bool:
        """Again only if the comparison before left a dispute, and there are further starts."""
        return self.unless is None or agreement_of_starts(state) < self.unless

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Search one sample with every start's map, and compare the maps."""
        densities = [self.model.density(self._sums(state, index)) for index in range(self.starts)]
        scores = self._scores(state, densities)
        best = int(torch.tensor(scores).argmax())
        maps = [Volume(density.volume.cpu(), density.voxel_size) for density in densities]
        others = [index for index in range(self.starts) if index != best]
        agreement = torch.ones(self.starts)
        agreement[others] = torch.tensor(
            map_parts(lambda index: map_agreement(maps[index], maps[best], self.limit), others, CPU)
        )
        state = state | {
            "radius": torch.tensor(self._radius(maps[best])),
            "centre": centre_of_mass(maps[best].data) * (self.model.pixel_size / self.stack.pixel_size),
            "start.scores": torch.tensor(scores),
            "start.agreement": agreement,
            "start.chosen": torch.tensor(best),
            "noise": state[f"start-{best + 1}.noise"],
            "power": state[f"start-{best + 1}.power"],
            "sums": state[f"start-{best + 1}.sums"],
        }
        return state, {"chosen": best + 1.0, "score": max(scores)}

    def _sums(self, state: State, index: int) -> BackProjection:
        return BackProjection(self.model.grid(self.limit), state[f"start-{index + 1}.sums"].to(self.stack.device))

    def _scores(self, state: State, densities: Sequence[FourierVolume]) -> list[float]:
        """Mean best log-likelihood of the sample in every map."""
        generator = torch.Generator().manual_seed(self.seed)
        band = Band(self.stack.band.box, self.limit)
        rows = torch.randperm(len(self.stack), generator=generator)[: self.images].sort().values
        images = self.stack.images(rows, band)
        noise = torch.stack([state[f"start-{i + 1}.noise"] for i in range(self.starts)]).amin(0)
        weight = band.at_shells(1 / noise).float()
        search = self.model.search(weight, 1, random_rotations(1, generator)[0])
        scores = []
        for density in densities:
            found = search_bank(images, search.bank(density, band), self.model.shifts, weight, 16)
            scores.append(float(found.log_likelihood[:, 0].mean()))
        return scores

    def _radius(self, chosen: Volume) -> float:
        """Radius in Å of the sphere in which density is sought from now on."""
        if self.diameter is not None:
            return 0.5 * self.diameter * MARGIN
        # A first map is blurred: give it room, but never more than the sphere it was found in.
        return min(0.5 * estimate_diameter(chosen) * MARGIN + self.model.pixel_size, self.model.radius)


def map_agreement(moving: Volume, target: Volume, limit: int) -> float:
    """Mean Fourier shell correlation of two maps over the shells 1 ... limit, one laid over the other."""
    laid = align_maps(moving, target).apply(moving, target)
    return float(fourier_shell_correlation(laid, target)[1 : limit + 1].mean())


@dataclass(frozen=True)
class FindAxes:
    """Turn the chosen map, which was found without symmetry, until the axes of the point group stand as they should.

    A map that has to have the group from the first step on cannot move its axes any more once they are wrong; one that
    grows freely shows them. Leaves the sums averaged over the group, and how far the map agreed with its turned copies.
    """

    model: CoarseModel
    limit: int
    image_pixel_size: float  # Å
    name: str = "axes"
    title: str = "Finding the symmetry axes"
    steps: int = 1

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Find the axes, turn the sums, average them."""
        sums = BackProjection(self.model.grid(self.limit), state["sums"])
        density = self.model.density(sums)
        axes = find_symmetry_axes(Volume(density.volume, density.voxel_size), self.model.symmetry)
        turned = turned_sums(sums, axes.rotation, axes.centre / self.model.pixel_size)
        symmetric = symmetrise(turned, point_group(self.model.symmetry))
        scale = self.model.pixel_size / self.image_pixel_size
        state = state | {
            "sums": symmetric.sums,
            "centre": centre_of_mass(self.model.density(symmetric).volume) * scale,
            "axes.agreement": torch.tensor(axes.agreement),
        }
        return state, {"agreement": axes.agreement}


def centre_of_mass(volume: Float[Tensor, "z y x"]) -> Float[Tensor, "3"]:
    """Centre (x, y, z) of the density above a tenth of its maximum, in voxels from the origin."""
    density = (volume - 0.1 * volume.max()).clamp(min=0)
    total = density.sum().clamp(min=1e-20)
    centre = []
    for dim in (2, 1, 0):
        position = torch.arange(volume.shape[dim], dtype=volume.dtype) - volume.shape[dim] // 2
        others = tuple(d for d in range(3) if d != dim)
        centre.append((density.sum(others) * position).sum() / total)
    return torch.stack(centre)
