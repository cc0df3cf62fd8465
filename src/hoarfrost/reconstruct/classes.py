"""Classes: the particles of one map divided among several, at the poses that they share.

Two maps from random poses of their own may come out as mirror images, or turned, and then compete for reasons that have
nothing to do with what the particles are. Compositions of one complex have most of their density in common; so one map
of all particles is refined first, and divided afterwards, by expectation and maximisation over the maps of the classes
with every particle at its pose (:mod:`hoarfrost.reconstruct.class_maps`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.data.dataset import BandStack
from hoarfrost.fourier.band import Band
from hoarfrost.optimise.loop import State
from hoarfrost.poses.gauss_newton import log_likelihood
from hoarfrost.reconstruct.class_maps import ClassMaps, folds_of
from hoarfrost.reconstruct.half_map_stage import HalfMapStage

SAMPLE = 10_000
"""Particles by which the map of all is divided at first."""

LEAST = 10
"""Particles that every class keeps in each half, so that there is a map to look at."""


def class_weights(scores: Float[Tensor, "n k"], progress: float) -> Float[Tensor, "n k"]:
    """Weights of the classes in every particle, ``softmax(S / T)``, while a division goes from 0 to 1.

    At first a class is judged by how much better it fits a particle than it fits others, so that none starves, and the
    temperature is twice the deviation of that difference; it falls to 1.
    """
    relative = scores - scores.mean(1, keepdim=True)
    if progress < 0.5:
        relative = relative - relative.mean(0)
    temperature = max(1.0, 2 * max(0.0, 1 - progress / 0.6) * float(relative.std()))
    return torch.softmax(relative / temperature, dim=1)


def label_agreement(labels: Int[Tensor, "n"], others: Int[Tensor, "n"], classes: int) -> float:
    """Share of equal labels (0 ... classes - 1) under the best renaming, on a scale where chance is 0 (Cohen's kappa)."""
    table = torch.zeros(classes, classes, dtype=torch.float64)
    table.index_put_((labels, others), torch.ones(len(labels), dtype=torch.float64), accumulate=True)
    table /= len(labels)
    best = max(
        itertools.permutations(range(classes)), key=lambda names: float(table[range(classes), list(names)].sum())
    )
    table = table[:, list(best)]
    agreed, chance = float(table.trace()), float((table.sum(0) * table.sum(1)).sum())
    return (agreed - chance) / max(1 - chance, 1e-9)


@dataclass(frozen=True)
class DivideMap:
    """Division ``index`` (from 1) of the map of all particles, from random weights, in the lowest shells only.

    The halves of the data share what comes out of it: the division must not see beyond what they may have in common.
    Leaves the weights of a sample's particles, and their mean log-likelihood.
    """

    stack: BandStack
    limit: int
    symmetry: str
    classes: int
    index: int
    seed: int
    rounds: int = 24

    @property
    def name(self) -> str:
        """Unique name of the stage."""
        return f"division-{self.index}"

    @property
    def title(self) -> str:
        """What people read."""
        return f"Division {self.index} into {self.classes} classes"

    @property
    def steps(self) -> int:
        """Rounds of expectation and maximisation."""
        return self.rounds

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """One round."""
        rows = sample_rows(state)
        band = Band(self.stack.band.box, self.limit)
        maps = ClassMaps(self.stack, band, float(state["radius"]), self.symmetry)
        if step == 0:
            generator = torch.Generator().manual_seed(self.seed + 31 * self.index)
            chance = 0.5 * torch.randn(len(rows), self.classes, generator=generator)
            state = state | {f"{self.name}.weights": torch.softmax(chance, dim=1)}
        fold = folds_of(len(rows), self.seed)
        scores = maps.scores(state, rows, state[f"{self.name}.weights"], fold, torch.ones(len(band)))
        weights = class_weights(scores, (step + 1) / self.rounds)
        score = torch.logsumexp(scores, dim=1).mean()
        state = state | {f"{self.name}.weights": weights, f"{self.name}.score": score}
        return state, {"score": float(score), "smallest class": float(weights.mean(0).min())}


def sample_rows(state: State) -> Int[Tensor, "s"]:
    """The particles by which the map is divided; junk is not among them."""
    rows = (state["half"] > 0).nonzero()[:, 0]
    return rows[torch.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).round().long()]


@dataclass(frozen=True)
class ChooseDivision:
    """Take the likeliest division, and see how far the others put the same particles together."""

    divisions: int
    classes: int
    name: str = "choose-division"
    title: str = "Comparing the divisions"
    steps: int = 1

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Compare scores and labels."""
        scores = torch.stack([state[f"division-{i + 1}.score"] for i in range(self.divisions)])
        weights = [state[f"division-{i + 1}.weights"] for i in range(self.divisions)]
        best = int(scores.argmax())
        labels = weights[best].argmax(1)
        agreement = [label_agreement(labels, other.argmax(1), self.classes) for other in weights]
        dropped = {f"division-{i + 1}.weights" for i in range(self.divisions)}
        state = {key: value for key, value in state.items() if key not in dropped}
        state |= {
            "division.weights": weights[best],
            "division.scores": scores,
            "division.agreement": torch.tensor(agreement),
            "division.chosen": torch.tensor(best),
        }
        return state, {"chosen": best + 1.0, "score": float(scores[best])}


@dataclass(frozen=True)
class AssignClasses:
    """A class for every particle: each half on its own, from the chosen division, in the band that the FSC allows."""

    maps: HalfMapStage
    common_limit: int
    classes: int
    seed: int
    name: str = "classes"
    title: str = "Assigning particles to classes"
    rounds: int = 8

    @property
    def steps(self) -> int:
        """One step for the half-maps, one for a first assignment, then rounds."""
        return 2 + self.rounds

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Make the half-maps, or do one round, and with the last decide."""
        stack = self.maps.stack
        if step == 0:
            return self.maps.prepare(state, self.name), {}
        if step == 1:
            return state | {f"{self.name}.weights": self._first(state)}, {}
        band = Band(stack.band.box, int(state[f"{self.name}.limit"]))
        maps = ClassMaps(stack, band, float(state["radius"]), self.maps.symmetry)
        weights = state[f"{self.name}.weights"].clone()
        scores = torch.zeros_like(weights)
        for number in (1, 2):
            rows = (state["half"] == number).nonzero()[:, 0]
            fold = folds_of(len(rows), self.seed + number)
            scores[rows] = maps.scores(state, rows, weights[rows], fold, state[f"{self.name}.weight"])
        share = weights.mean(0).clamp(min=1e-3).log()
        weights = torch.softmax(scores + share, dim=1)
        state = state | {f"{self.name}.weights": weights}
        if step + 1 == self.steps:
            state = self.maps.forget(state, self.name) | self._decide(state, weights)
            del state[f"{self.name}.weights"]
        return state, {"smallest class": float(weights.mean(0).min())}

    def _first(self, state: State) -> Float[Tensor, "n k"]:
        """Weights by the maps of the chosen division, in its band."""
        stack = self.maps.stack
        band = Band(stack.band.box, self.common_limit)
        maps = ClassMaps(stack, band, float(state["radius"]), self.maps.symmetry)
        sample = sample_rows(state)
        weights = torch.full((len(stack), self.classes), 1 / self.classes)
        weights[sample] = state["division.weights"]
        densities = maps.densities(maps.sums(state, sample, weights[sample]))
        unseen = torch.ones(len(stack), dtype=torch.bool)
        unseen[sample] = False
        for rows in unseen.nonzero()[:, 0].split(1024):
            images, pose = stack.images(rows, band), (state["rotations"][rows], state["shifts"][rows])
            scores = [log_likelihood(images, one, *pose, torch.ones(len(band))).cpu() for one in densities]
            weights[rows] = torch.softmax(torch.stack(scores, dim=1), dim=1)
        return weights

    def _decide(self, state: State, weights: Float[Tensor, "n k"]) -> State:
        """The likeliest class of every particle, the largest class first."""
        labels = weights.argmax(1)
        for number in (1, 2):
            mine = (state["half"] == number).nonzero()[:, 0]
            for k in range(self.classes):
                if int((labels[mine] == k).sum()) < min(LEAST, len(mine) // self.classes):
                    labels[mine[weights[mine, k].topk(min(LEAST, len(mine) // self.classes)).indices]] = k
        order = torch.bincount(labels, minlength=self.classes).argsort(descending=True, stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(self.classes)
        return {"class": 1 + rank[labels], "class.posterior": weights[:, order]}
