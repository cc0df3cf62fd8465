"""After the starts: which of them is best, and where every particle sits in its map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.analysis.alignment import align_rotations, rotation_errors
from hoarfrost.data.dataset import BandStack
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.optimise.loop import State
from hoarfrost.physics.masks import estimate_diameter
from hoarfrost.poses.likelihood import search_teraflop
from hoarfrost.poses.search import search_bank
from hoarfrost.reconstruct.annealing import WORK, CoarseModel, disputed
from hoarfrost.reconstruct.backprojection import BackProjection
from hoarfrost.representations.voxel import FourierVolume
from hoarfrost.types import Volume

MARGIN = 1.1
"""Room that the sphere of a reconstruction leaves around the particle."""

IMAGES_A_STEP = 1024
"""Particles assigned in one step of the full pass."""


@dataclass(frozen=True)
class ChooseStart:
    """Score the maps of all starts on the same images at equal settings, and compare the poses they give.

    Leaves the number of the best start, the scores, and how far the others agree with it: the share of images whose
    poses coincide within 1.5 grid steps after the best rigid motion of either hand.
    """

    stack: BandStack
    model: CoarseModel
    limit: int
    starts: int
    diameter: float | None  # Å; estimated from the chosen map where not given
    seed: int
    images: int = 768
    again: bool = False  # after the further starts of a dispute
    title: str = "Comparing the starts"
    steps: int = 1

    @property
    def name(self) -> str:
        """Unique name of the stage."""
        return "choose-again" if self.again else "choose"

    def needed(self, state: State) -> bool:
        """Again only if the first comparison left a dispute."""
        return not self.again or disputed(state)

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Search one sample with every start's map."""
        generator = torch.Generator().manual_seed(self.seed)
        band = Band(self.stack.band.box, self.limit)
        rows = torch.randperm(len(self.stack), generator=generator)[: self.images].sort().values
        images = self.stack.images(rows, band)
        noise = torch.stack([state[f"start-{i + 1}.noise"] for i in range(self.starts)]).amin(0)
        weight = band.at_shells(1 / noise).float()
        frame = random_rotations(1, generator)[0]
        scores, rotations = [], []
        for index in range(self.starts):
            sums = BackProjection(self.model.grid(self.limit), state[f"start-{index + 1}.sums"].to(self.stack.device))
            bank = self.model.search(weight, 1, frame).bank(self.model.density(sums), band)
            found = search_bank(images, bank, self.model.shifts, weight, 16)
            scores.append(found.log_likelihood[:, 0].mean())
            rotations.append(bank.rotations[found.orientation[:, 0]].double())
        best = int(torch.stack(scores).argmax())
        near = 1.5 * self.model.orientations.spacing
        agreement = [share_agreeing(r, rotations[best], near, self.model.symmetry) for r in rotations]
        chosen = BackProjection(self.model.grid(self.limit), state[f"start-{best + 1}.sums"])
        density = self.model.density(chosen)
        state = state | {
            "radius": torch.tensor(self._radius(density)),
            "centre": centre_of_mass(density.volume) * (self.model.pixel_size / self.stack.pixel_size),
            "start.scores": torch.stack(scores),
            "start.agreement": torch.tensor(agreement),
            "start.chosen": torch.tensor(best),
            "noise": state[f"start-{best + 1}.noise"],
            "power": state[f"start-{best + 1}.power"],
            "sums": chosen.sums,
        }
        return state, {"chosen": best + 1.0, "score": float(max(scores))}

    def _radius(self, density: FourierVolume) -> float:
        """Radius in Å of the sphere in which density is sought from now on."""
        if self.diameter is not None:
            return 0.5 * self.diameter * MARGIN
        estimated = 0.5 * estimate_diameter(Volume(density.volume, density.voxel_size))
        # A first map is blurred: give it room, but never more than the sphere it was found in.
        return min(estimated * MARGIN + self.model.pixel_size, self.model.radius)


def share_agreeing(first: Float[Tensor, "n 3 3"], second: Float[Tensor, "n 3 3"], near: float, symmetry: str) -> float:
    """Share of poses within ``near`` radians of each other after the best rigid motion and hand."""
    aligned = align_rotations(first, second, symmetry=symmetry).apply(first)
    return float((rotation_errors(aligned, second, symmetry=symmetry) <= near).float().mean())


@dataclass(frozen=True)
class FullPass:
    """Search the pose of every particle in the map of its half, and move the origin to the centre of mass."""

    stack: BandStack
    model: CoarseModel
    limit: int
    seed: int
    name: str = "full-pass"
    title: str = "Searching the poses of all particles"

    @property
    def steps(self) -> int:
        """Chunks of the stack."""
        return -(-len(self.stack) // IMAGES_A_STEP)

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Search one chunk."""
        count = len(self.stack)
        if step == 0:
            state = state | {
                "rotations": torch.eye(3, dtype=torch.float64).repeat(count, 1, 1),
                "shifts": torch.zeros(count, 2, dtype=torch.float64),
                "score": torch.zeros(count),
            }
        state = dict(state)
        rows = torch.arange(step * IMAGES_A_STEP, min((step + 1) * IMAGES_A_STEP, count))
        frame = random_rotations(1, torch.Generator().manual_seed(self.seed + step))[0]
        work = 0.0
        for half in (1, 2):
            mine = rows[state["half"][rows] == half]
            work += self._search(state, half, mine, frame)
        return state, {"score": float(state["score"][rows].mean()), WORK: work}

    def _search(self, state: State, half: int, rows: Int[Tensor, "b"], frame: Float[Tensor, "3 3"]) -> float:
        band = Band(self.stack.band.box, self.limit)
        sums = BackProjection(self.model.grid(self.limit), state[f"half-{half}.sums"].to(self.stack.device))
        density = self.model.density(sums)
        weight = band.at_shells(1 / state[f"half-{half}.noise"]).float()
        bank = self.model.search(weight, 0, frame).bank(density, band)
        found = search_bank(self.stack.images(rows, band), bank, self.model.shifts, weight, 16)
        rotations = bank.rotations[found.orientation[:, 0]].double()
        centre = (rotations @ state["centre"].double())[:, :2]
        for key, value in (
            ("rotations", rotations),
            ("shifts", self.model.shifts[found.shift[:, 0]].double() + centre),
            ("score", found.log_likelihood[:, 0]),
        ):
            state[key] = state[key].index_copy(0, rows, value)
        return search_teraflop(len(rows), len(self.model.shifts), bank)


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


def split_halves(count: int, groups: Int[Tensor, "n"] | None, seed: int) -> Int[Tensor, "n"]:
    """Half (1 or 2) of every particle: drawn at random, the two equally large within every group."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.empty(count, dtype=torch.int64)
    labels = torch.zeros(count, dtype=torch.int64) if groups is None else groups
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        half[shuffled] = 1 + torch.arange(len(rows)) % 2
    return half
