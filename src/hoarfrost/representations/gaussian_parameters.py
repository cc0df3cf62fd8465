"""Gaussians as free numbers for an optimiser: anything may be added to them, and a density comes out.

Masses are softplus functions, ``y = log(1 + exp(raw))``. As long as ``y`` is small against one this is nearly the
exponential, so that a step of ``raw`` is a relative change; the unit, ``MASS_UNITS`` typical masses, makes it so. Scales
are logistic functions between a floor and a ceiling, exponentials as well while they are far below the ceiling. Neither
is clamped, for a clamped number has no gradient that could bring it back; without a ceiling single Gaussians run away
into sheets that are wider than the particle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize, softplus

from hoarfrost.representations.gaussians import GaussianDensity

MASS_UNITS = 100.0
"""A typical mass is this much smaller than the mass at which softplus turns from an exponential into a line."""

WIDEST, HEADROOM = 20.0, 2.0
"""The ceiling of scales: so many times the floor, or so many times the widest Gaussian, whichever is more."""


@dataclass(frozen=True)
class GaussianParameters:
    """Raw numbers of Gaussians; any real values give a valid density."""

    centres: Float[Tensor, "n 3"]  # Å
    raw_masses: Float[Tensor, "n"]
    raw_scales: Float[Tensor, "n axes"]
    raw_quaternions: Float[Tensor, "n 4"] | None  # of any length but zero
    mass_unit: float
    least_scale: float  # Å
    most_scale: float  # Å
    box: int
    voxel_size: float

    @classmethod
    def of(cls, density: GaussianDensity, least_scale: float, most_scale: float | None = None) -> GaussianParameters:
        """The numbers that give this density.

        Parameters
        ----------
        density : masses above zero and scales between the two.
        least_scale, most_scale : floor and ceiling of the scales in Å; the latter by :data:`WIDEST` and
            :data:`HEADROOM` where not given.

        Raises
        ------
        ValueError
            If a mass is not above zero, or a scale not between floor and ceiling.
        """
        scales = density.scales
        most = max(WIDEST * least_scale, HEADROOM * float(scales.max())) if most_scale is None else most_scale
        if not bool((density.masses > 0).all() and (scales > least_scale).all() and (scales < most).all()):
            raise ValueError(f"masses have to be above zero, and scales between {least_scale:g} and {most:g} Å")
        unit = MASS_UNITS * float(density.masses.mean())
        return cls(
            centres=density.centres,
            raw_masses=inverse_softplus(density.masses / unit),
            raw_scales=torch.logit((scales - least_scale) / (most - least_scale)),
            raw_quaternions=density.quaternions,
            mass_unit=unit,
            least_scale=least_scale,
            most_scale=most,
            box=density.box,
            voxel_size=density.voxel_size,
        )

    def density(self) -> GaussianDensity:
        """The Gaussians; differentiable in all raw numbers."""
        return GaussianDensity(
            centres=self.centres,
            masses=softplus(self.raw_masses, threshold=80.0) * self.mass_unit,
            scales=self.least_scale + (self.most_scale - self.least_scale) * torch.sigmoid(self.raw_scales),
            quaternions=None if self.raw_quaternions is None else normalize(self.raw_quaternions, dim=-1),
            box=self.box,
            voxel_size=self.voxel_size,
        )

    def tensors(self) -> dict[str, Tensor]:
        """The raw numbers by name, for an optimiser or a checkpoint."""
        named = {"centres": self.centres, "raw_masses": self.raw_masses, "raw_scales": self.raw_scales}
        return named if self.raw_quaternions is None else named | {"raw_quaternions": self.raw_quaternions}

    def with_tensors(self, tensors: dict[str, Tensor]) -> GaussianParameters:
        """Other raw numbers in place of these."""
        changes: dict[str, Any] = {name: tensors[name] for name in self.tensors()}
        return replace(self, **changes)

    def select(self, which: Int[Tensor, "k"] | Bool[Tensor, "n"]) -> GaussianParameters:
        """Only these Gaussians, in the order asked for."""
        return self.with_tensors({name: tensor[which] for name, tensor in self.tensors().items()})


def inverse_softplus(value: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The number whose softplus is ``value`` > 0."""
    return value + torch.log(-torch.expm1(-value))
