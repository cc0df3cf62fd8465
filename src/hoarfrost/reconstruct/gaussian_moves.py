"""Where Gaussians come from, and what becomes of them between the levels of a fit.

Gaussians are drawn at random from a density; later, each may be split in two, and those that carry next to nothing, or
have left the support, are placed anew where the residual says that density is missing. Steps of an optimiser move a
Gaussian by a fraction of its width and never through empty space, so that these moves are what brings one to another
part of the particle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hoarfrost.geometry.rotations import quaternion_to_matrix
from hoarfrost.representations.gaussian_seeds import drawn_from
from hoarfrost.representations.gaussians import GaussianDensity, merged
from hoarfrost.types import Volume

CHILD_SHIFT, CHILD_SCALE = 0.5, math.sqrt(3) / 2
"""Two halves of a Gaussian so far (in its deviation) to either side, so much narrower along that axis, have together
its mass, mean and second moment."""

TRIVIAL_MASS = 0.05
"""Share of the median mass below which a Gaussian is placed anew."""


@dataclass(frozen=True)
class Surroundings:
    """What a move sees beside the Gaussians."""

    missing: Volume  # where the residual asks for more density, positive; zero outside the support
    support: Volume  # where density is sought, from 0 to 1
    generator: torch.Generator


@runtime_checkable
class Move(Protocol):
    """A change in the set of Gaussians."""

    def __call__(self, density: GaussianDensity, around: Surroundings) -> GaussianDensity:
        """The Gaussians after it."""
        ...


@dataclass(frozen=True)
class Recycle:
    """Gaussians without mass or outside the support are placed anew where density is missing."""

    trivial_mass: float = TRIVIAL_MASS

    def __call__(self, density: GaussianDensity, around: Surroundings) -> GaussianDensity:
        """Positions are drawn in proportion to the missing density; masses and widths are those of the median."""
        median = density.masses.median()
        lost = (density.masses < self.trivial_mass * median) | (value_at(around.support, density.centres) < 0.5)
        if not bool(lost.any()) or float(around.missing.data.max()) <= 0:
            return density
        fresh = drawn_from(around.missing, int(lost.sum()), around.generator)
        centres, masses, scales = density.centres.clone(), density.masses.clone(), density.scales.clone()
        centres[lost], masses[lost], scales[lost] = fresh.to(centres), median, density.scales.median()
        return replace(density, centres=centres, masses=masses, scales=scales)


@dataclass(frozen=True)
class Split:
    """The Gaussians that blur the most of the density are split in two along their longest axes, until there are enough."""

    count: int

    def __call__(self, density: GaussianDensity, around: Surroundings) -> GaussianDensity:
        """Mass, mean and second moment of every pair of halves are those of the whole."""
        wanted = min(self.count - len(density), len(density))
        if wanted <= 0:
            return density
        # The mass of a Gaussian times its variance is what it adds to the second moment of the map.
        chosen = torch.topk(density.masses * density.variances, wanted).indices
        kept = torch.ones(len(density), dtype=torch.bool, device=chosen.device)
        kept[chosen] = False
        left, right = halves_of(density.select(chosen), around.generator)
        return merged(merged(density.select(kept), left), right)


def halves_of(density: GaussianDensity, generator: torch.Generator) -> tuple[GaussianDensity, GaussianDensity]:
    """Every Gaussian as two of half its mass; balls, which have no axis of their own, are split along a random one.

    A ball's halves are balls: they keep the mean, and the second moment on average over directions.
    """
    scales = density.scales.clone()
    if density.quaternions is None:
        axis = torch.nn.functional.normalize(torch.randn(len(density), 3, generator=generator), dim=-1).to(scales)
        deviation = scales[:, 0]
        # The trace keeps its value: 3 s^2 = 3 s'^2 + (s / 2)^2.
        scales = scales * math.sqrt(1 - CHILD_SHIFT**2 / 3)
    else:
        longest = scales.argmax(dim=1)
        rows = torch.arange(len(density), device=scales.device)
        axis, deviation = quaternion_to_matrix(density.quaternions)[rows, :, longest], scales[rows, longest]
        scales[rows, longest] *= CHILD_SCALE
    step = CHILD_SHIFT * deviation[:, None] * axis
    first, second = (
        replace(density, centres=density.centres + sign * step, masses=density.masses / 2, scales=scales)
        for sign in (1, -1)
    )
    return first, second


def value_at(volume: Volume, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
    """A map at the voxels nearest to points (x, y, z) in Å; 0 outside the map."""
    box = volume.box
    place = (points / volume.voxel_size).round().long() + box // 2
    inside: Bool[Tensor, "n"] = ((place >= 0) & (place < box)).all(-1)
    x, y, z = place.clamp(0, box - 1).unbind(-1)
    return volume.data.to(points)[z, y, x] * inside
