"""From nothing to a map: annealed soft assignment of small batches, starting from random poses.

Each step searches every orientation and shift for a fresh batch of images, spreads every image over its best
orientations with the weights ``softmax(S / T)``, and back-projects. While the temperature T falls and the band grows,
the running sums forget what early steps put there. The orientation grid is turned by a new random rotation in every
step, so that no map learns the grid's own directions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from hoarfrost.data.dataset import BandImages, BandStack
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.geometry.so3_grid import OrientationGrid
from hoarfrost.geometry.symmetry import point_group
from hoarfrost.kernels.library import compiled_for
from hoarfrost.kernels.spread import spread_images
from hoarfrost.optimise.loop import State
from hoarfrost.physics.masks import soft_sphere
from hoarfrost.poses.likelihood import SliceBank, search_teraflop, weighted_data
from hoarfrost.poses.rough_shifts import nearby, rough_shifts
from hoarfrost.poses.search import Candidates, ExhaustiveSearch, search_bank
from hoarfrost.reconstruct.backprojection import BackProjection, node_shells
from hoarfrost.reconstruct.half_maps import JOINED_RESOLUTION, inside
from hoarfrost.representations.voxel import FourierVolume

WORK = "Tflop"
"""Under this name a step reports the matrix-product operations of its search."""


@dataclass(frozen=True)
class Annealing:
    """The schedule of one start."""

    steps: int = 40
    batch: int = 500
    first_limit: int = 6
    last_limit: int = 14
    growing: float = 0.7  # share of the steps in which band and temperature move
    keep: int = 64  # orientations an image is spread over
    spread: float = 24.0  # effective number of orientations of an image at the beginning
    memory: float = 0.6  # what a step leaves of the sums before it

    def progress(self, step: int) -> float:
        """0 at the first step, 1 from the end of the moving part on."""
        return min(1.0, step / max(1.0, self.growing * (self.steps - 1)))

    def limit(self, step: int) -> int:
        """Band limit of a step."""
        return round(self.first_limit + self.progress(step) * (self.last_limit - self.first_limit))

    def effective_number(self, step: int) -> float:
        """How many orientations an image is meant to be spread over, falling geometrically to one."""
        return self.spread ** (1 - self.progress(step))


@dataclass(frozen=True)
class CoarseModel:
    """What the starts share: the search grid and the small box in which the map of a low band lives."""

    box: int
    pixel_size: float  # Å of the small box
    radius: float  # Å; density is sought inside this sphere
    symmetry: str
    orientations: OrientationGrid
    shifts: Float[Tensor, "t 2"]  # pixels of the images

    @cached_property
    def near_shifts(self) -> Float[Tensor, "s 2"]:
        """Shifts that are searched about a place already known roughly."""
        return nearby(self.shifts)

    def grid(self, limit: int) -> SliceGrid:
        """The slice grid of the running sums."""
        return SliceGrid(self.box, limit)

    @property
    def common_limit(self) -> int:
        """Band limit of what the halves of a stack may have in common: about 40 Å, but enough shells for a shape.

        Halves that grew from one map agree as far as that map went, whether or not there is anything in the images.
        """
        return max(6, min(8, int(self.box * self.pixel_size / JOINED_RESOLUTION)))

    def density(self, sums: BackProjection) -> FourierVolume:
        """The regularised map inside the sphere, its surroundings levelled to zero."""
        folded = sums.folded()
        volume = folded.volume(0.1 * folded.weight_per_shell)
        mask = soft_sphere(self.box, self.radius / self.pixel_size, 2.0).to(volume)
        return FourierVolume(inside(volume, mask), self.pixel_size, sums.grid)

    def search(self, weight: Float[Tensor, "m"], keep: int, frame: Float[Tensor, "3 3"]) -> ExhaustiveSearch:
        """The search of one batch."""
        return ExhaustiveSearch(self.orientations, self.shifts, weight, keep, frame, self.symmetry)


@dataclass(frozen=True)
class AnnealedMap:
    """A map grown by annealing, as a stage of a run. Its state: the sums, the noise in each shell, the scores."""

    name: str
    title: str
    stack: BandStack
    model: CoarseModel
    schedule: Annealing
    seed: int
    half: int = 0  # 0: from random poses, with all images; 1 or 2: from the chosen map, with those of one half
    unless: float | None = None  # not made if two of the starts before this one agree by as much

    @classmethod
    def start(
        cls,
        index: int,
        stack: BandStack,
        model: CoarseModel,
        schedule: Annealing,
        seed: int,
        *,
        unless: float | None = None,
    ) -> AnnealedMap:
        """Start ``index`` (from 0) of a run: random poses, all images."""
        title = f"Start {index + 1}: map from random poses"
        name, own_seed = f"start-{index + 1}", seed + 1000 * (index + 1)
        return cls(name, title, stack, model, schedule, own_seed, unless=unless)

    @classmethod
    def of_half(cls, half: int, stack: BandStack, model: CoarseModel, schedule: Annealing, seed: int) -> AnnealedMap:
        """Half 1 or 2: the chosen map, low-passed so far that it cannot bias the FSC, and only its own images."""
        title = f"Half {half}: map from its own images"
        return cls(f"half-{half}", title, stack, model, schedule, seed + 1000 * (half + 500), half)

    @property
    def steps(self) -> int:
        """Steps of the schedule."""
        return self.schedule.steps

    def needed(self, state: State) -> bool:
        """Always, but for starts that only a dispute calls for."""
        return self.unless is None or agreement_of_starts(state) < self.unless

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """One batch: search, spread, back-project."""
        generator = torch.Generator().manual_seed(self.seed + step)
        if step == 0:
            state = state | (self._begin_half(state) if self.half else self._begin(state, generator))
        sums = BackProjection(
            self.model.grid(self.schedule.last_limit), state[f"{self.name}.sums"].to(self.stack.device)
        )
        noise = state[f"{self.name}.noise"]
        band = Band(self.stack.band.box, self.schedule.limit(step))
        images = self.stack.images(self._batch(state, step), band)
        weight = band.at_shells(1 / noise).float()

        frame, density = random_rotations(1, generator)[0], self.model.density(sums)
        images = images.centred(rough_shifts(images, density, self.model.shifts, weight, frame))
        bank = self.model.search(weight, self.schedule.keep, frame).bank(density, band)
        found = search_bank(images, bank, self.model.near_shifts, weight, self.schedule.keep)
        spread = assignment(found.log_likelihood, self.schedule.effective_number(step))
        fresh = BackProjection.empty(sums.grid, self.stack.device)
        insert_assigned(fresh, images, bank, found, spread, self.model.near_shifts, weight, self.model.symmetry)
        noise = self._update_noise(noise, state[f"{self.name}.power"], images, bank, found)
        score = float(found.log_likelihood[:, 0].mean())
        scores = torch.cat([state[f"{self.name}.scores"], torch.tensor([score])])
        state = state | {
            f"{self.name}.sums": (self.schedule.memory * sums.sums + fresh.sums).cpu(),
            f"{self.name}.noise": noise,
            f"{self.name}.scores": scores,
        }
        work = search_teraflop(len(images), len(self.model.near_shifts), bank)
        return state, {"score": score, "band": band.limit, WORK: work}

    def _begin(self, state: State, generator: torch.Generator) -> State:
        band = Band(self.stack.band.box, self.schedule.last_limit)
        images = self.stack.images(self._batch(state, 0), band)
        sums = BackProjection.empty(self.model.grid(self.schedule.last_limit), self.stack.device)
        sums.add(images, random_rotations(len(images), generator), torch.zeros(len(images), 2))
        power = band.shell_mean(images.vectors.abs().square().mean(0)).clamp(min=1.0).cpu()
        return {
            f"{self.name}.sums": sums.sums.cpu(),
            f"{self.name}.noise": power.clone(),
            f"{self.name}.power": power,
            f"{self.name}.scores": torch.zeros(0),
        }

    def _begin_half(self, state: State) -> State:
        grid = self.model.grid(self.schedule.last_limit)
        common = (node_shells(grid) <= self.model.common_limit).flatten()
        return {
            f"{self.name}.sums": state["sums"] * common[:, None],
            f"{self.name}.noise": state["noise"],
            f"{self.name}.power": state["power"],
            f"{self.name}.scores": torch.zeros(0),
        }

    def _batch(self, state: State, step: int) -> Int[Tensor, "b"]:
        """Images of a step: the next ones in a shuffled order that every epoch draws anew."""
        pool = (state["half"] == self.half).nonzero()[:, 0] if self.half else torch.arange(len(self.stack))
        count, size = len(pool), min(self.schedule.batch, len(pool))
        first, last = step * size // count, ((step + 1) * size - 1) // count
        order = [
            torch.randperm(count, generator=torch.Generator().manual_seed(self.seed + 500 + epoch))
            for epoch in range(first, last + 1)
        ]
        offset = step * size - count * first
        return pool[torch.cat(order)[offset : offset + size]].sort().values

    def _update_noise(
        self, noise: Tensor, power: Tensor, images: BandImages, bank: SliceBank, found: Candidates
    ) -> Tensor:
        """Half the old variance, half that of the residuals at the best poses, between pure noise and pure image."""
        slices = bank.at(found.orientation[:, 0]) * images.transfer
        residual = images.centred(self.model.near_shifts[found.shift[:, 0]]).vectors - slices
        seen = images.band.shell_mean(residual.abs().square().mean(0)).cpu()
        updated = noise.clone()
        inner = slice(1, images.band.limit + 1)
        updated[inner] = 0.5 * noise[inner] + 0.5 * seen[inner]
        return torch.minimum(updated.clamp(min=1.0), power)


def agreement_of_starts(state: State) -> float:
    """How far another start agrees with the best one, once they have been compared."""
    return float(state["start.agreement"].sort(descending=True).values[1:2].sum())


def assignment(log_likelihood: Float[Tensor, "b c"], effective_number: float) -> Float[Tensor, "b c"]:
    """Weights ``softmax(S / T)``, T being at least 1 and such that the mean perplexity is ``effective_number``.

    The scale of S grows with the signal, and a temperature would have to be tuned to each stack; a spread need not.
    """
    temperature = 1.0
    if effective_number > 1:
        low, high = 0.0, math.log(1e6)
        for _ in range(20):
            middle = (low + high) / 2
            weights = torch.softmax(log_likelihood / math.exp(middle), dim=-1)
            entropy = -(weights * weights.clamp(min=1e-30).log()).sum(-1)
            low, high = (middle, high) if float(entropy.mean().exp()) < effective_number else (low, middle)
        temperature = max(1.0, math.exp(high))
    return torch.softmax(log_likelihood / temperature, dim=-1)


def insert_assigned(
    sums: BackProjection,
    images: BandImages,
    bank: SliceBank,
    found: Candidates,
    spread: Float[Tensor, "b c"],
    shifts: Float[Tensor, "t 2"],
    weight: Float[Tensor, "m"],
    symmetry: str,
) -> None:
    """Back-project images spread over orientations of a bank.

    Images are first summed for each orientation (an orientation and its half-turn share a slice), so that only the
    bank's slices have to be inserted, however many images there are.
    """
    values, weights = _summed_by_slice(images, bank, found, spread, shifts, weight)
    used = (weights.sum(1) > 0).nonzero()[:, 0]
    rotations = bank.rotations[: len(bank.slices)].to(weights.device)[used]
    for operator in point_group(symmetry).to(rotations):
        sums.grid.insert_slices(sums.sums, rotations @ operator, bank.band, values[used], weights[used])


def _summed_by_slice(
    images: BandImages,
    bank: SliceBank,
    found: Candidates,
    spread: Float[Tensor, "b c"],
    shifts: Float[Tensor, "t 2"],
    weight: Float[Tensor, "m"],
) -> tuple[Complex[Tensor, "r m"], Float[Tensor, "r m"]]:
    """Here in PyTorch; ``kernels/spread`` is used where it can be."""
    data, power = weighted_data(images, weight)
    kept, device = len(bank.slices), data.device
    phases = images.band.shift_phases(-shifts.to(device))
    if compiled_for(data, power, phases):
        return spread_images(data, power, phases, found.orientation, found.shift, spread, kept)
    orientation, shift, spread = found.orientation.to(device), found.shift.to(device), spread.to(device)
    numerator = torch.zeros(kept, len(bank.band), dtype=data.dtype, device=device)
    for rows in torch.arange(len(images), device=device).split(64):
        moved = data[rows][:, None] * phases[shift[rows]] * spread[rows][..., None]
        turned = torch.where((orientation[rows] >= kept)[..., None], moved.conj(), moved)
        _add_rows(numerator, orientation[rows].flatten() % kept, turned.flatten(0, 1))
    shares = torch.zeros(kept, len(images), device=device).scatter_add_(0, (orientation % kept).T, spread.T)
    return numerator, shares @ power


def _add_rows(target: Complex[Tensor, "r m"], rows: Int[Tensor, "k"], values: Complex[Tensor, "k m"]) -> None:
    torch.view_as_real(target).flatten(1).index_add_(0, rows, torch.view_as_real(values.resolve_conj()).flatten(1))
