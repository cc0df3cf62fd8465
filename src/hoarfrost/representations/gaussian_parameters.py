"""Gaussians as free numbers for an optimiser: anything may be added to them, and a density comes out.

Masses and scales are softplus functions, ``y = log(1 + exp(raw))``. As long as ``y`` is small against one this is
nearly the exponential, so that a step of ``raw`` is a relative change; units are chosen to make it so: masses count in
``MASS_UNITS`` typical masses, scales in ``SCALE_UNIT`` Å. A floor under the scales is added rather than clamped, for a
clamped number has no gradient that could bring it back.
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

SCALE_UNIT = 100.0
"""Å; far more than the width of any Gaussian."""


@dataclass(frozen=True)
class GaussianParameters:
    """Raw numbers of Gaussians; any real values give a valid density."""

    centres: Float[Tensor, "n 3"]  # Å
    raw_masses: Float[Tensor, "n"]
    raw_scales: Float[Tensor, "n axes"]
    raw_quaternions: Float[Tensor, "n 4"] | None  # of any length but zero
    mass_unit: float
    least_scale: float  # Å
    box: int
    voxel_size: float

    @classmethod
    def of(cls, density: GaussianDensity, least_scale: float, mass_unit: float | None = None) -> GaussianParameters:
        """The numbers that give this density.

        Parameters
        ----------
        density : masses above zero and scales above ``least_scale``.
        least_scale : floor under the scales in Å.
        mass_unit : :data:`MASS_UNITS` times the mean mass where not given.

        Raises
        ------
        ValueError
            If a mass or a scale is not above its floor.
        """
        if not bool((density.masses > 0).all() and (density.scales > least_scale).all()):
            raise ValueError(f"masses have to be above zero and scales above {least_scale:g} Å")
        unit = MASS_UNITS * float(density.masses.mean()) if mass_unit is None else mass_unit
        return cls(
            centres=density.centres,
            raw_masses=inverse_softplus(density.masses / unit),
            raw_scales=inverse_softplus((density.scales - least_scale) / SCALE_UNIT),
            raw_quaternions=density.quaternions,
            mass_unit=unit,
            least_scale=least_scale,
            box=density.box,
            voxel_size=density.voxel_size,
        )

    def density(self) -> GaussianDensity:
        """The Gaussians; differentiable in all raw numbers."""
        return GaussianDensity(
            centres=self.centres,
            masses=softplus(self.raw_masses, threshold=80.0) * self.mass_unit,
            scales=self.least_scale + SCALE_UNIT * softplus(self.raw_scales, threshold=80.0),
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
