"""Refinement of the defocus against a density, of every particle or of every optics group; the astigmatism stays.

At a fixed pose an image enters through two statistics only, ``a = v Re<Y, X_t>`` and ``b = v |Y|^2`` of the slice Y, and
the log-likelihood of a change ``d`` of both defocus values is

    l(d) = sum 2 T(d) a - T(d)^2 b,      l' = sum 2 T' (a - T b),      information = sum 2 T'^2 b,

with T the transfer function of whitened images and T' its derivative. A normal prior about the given defocus adds
``-d^2 / (2 prior^2)``. Newton's steps find the maximum next to it: a phase that is wrong by more than a quarter turn at
the end of the band may belong to another one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.data.dataset import BandImages, inverse_deviation, whitened_transfer
from hoarfrost.fourier.band import Band
from hoarfrost.physics.ctf import contrast_transfer_function, defocus_derivative
from hoarfrost.representations.base import Density
from hoarfrost.types import Optics


@dataclass(frozen=True)
class DefocusChange:
    """What is to be added to both defocus values of each particle, Å, and the standard deviation of its error."""

    change: Float[Tensor, "b"]
    deviation: Float[Tensor, "b"]

    def applied(self, optics: Optics) -> Optics:
        """The optics with the defocus that was found."""
        change = self.change.to(optics.defocus_u)
        return optics.replace(defocus_u=optics.defocus_u + change, defocus_v=optics.defocus_v + change)


@dataclass(frozen=True)
class DefocusRefinement:
    """Newton's method on the defocus of each unit: a particle, or all particles of an optics group."""

    weight: Float[Tensor, "m"]  # inverse noise variance of the whitened coefficients
    noise: Float[Tensor, "groups shells"]  # that the images were whitened by
    prior: float = 300.0  # Å; how far the given defocus is off
    per_group: bool = False
    iterations: int = 6

    def refine(
        self,
        images: BandImages,
        density: Density,
        optics: Optics,
        rotations: Float[Tensor, "b 3 3"],
        shifts: Float[Tensor, "b 2"],
    ) -> DefocusChange:
        """Changes of the defocus at these poses (shifts in pixels); a unit never ends less likely than it began.

        Of ``images`` the vectors count; their transfer functions are made from ``optics``. All particles of a group
        must come in one call where groups are refined.
        """
        slices = density.project(rotations.to(images.transfer), images.band, images.frequency_matrix)
        data, weight = images.centred(shifts).vectors, self.weight.to(images.transfer)
        cross = weight * (data.real * slices.real + data.imag * slices.imag)
        power = weight * (slices.real.square() + slices.imag.square())

        unit = torch.unique(optics.group, return_inverse=True)[1] if self.per_group else torch.arange(len(optics))
        count = int(unit.max()) + 1
        precision = self.prior**-2

        def evaluate(change: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            at = DefocusChange(change[unit], change[unit]).applied(optics)
            transfer = whitened_transfer(at, images.band, self.noise).to(power)
            slope = whitened_derivative(at, images.band, self.noise).to(power)
            value = _sum_by(unit, (transfer * (2 * cross - transfer * power)).sum(-1), count)
            first = _sum_by(unit, (2 * slope * (cross - transfer * power)).sum(-1), count)
            information = _sum_by(unit, (2 * slope.square() * power).sum(-1), count)
            return value - 0.5 * precision * change**2, first - precision * change, information + precision

        change = torch.zeros(count, dtype=torch.float64)
        value, first, information = evaluate(change)
        damping = torch.ones_like(change)
        for _ in range(self.iterations):
            trial = change + damping * first / information
            there = evaluate(trial)
            better = there[0] > value
            change = torch.where(better, trial, change)
            value, first, information = (
                torch.where(better, new, old) for new, old in zip(there, (value, first, information), strict=True)
            )
            damping = torch.where(better, torch.ones_like(damping), damping * 0.3)
        return DefocusChange(change[unit], information.rsqrt()[unit])


def whitened_derivative(optics: Optics, band: Band, noise: Float[Tensor, "groups shells"]) -> Float[Tensor, "n m"]:
    """Derivative of ``data.dataset.whitened_transfer`` by the defocus, per Å."""
    derivative = defocus_derivative(optics, band.frequency)
    if optics.premultiplied.any():
        doubled = 2 * contrast_transfer_function(optics, band.frequency) * derivative
        derivative = torch.where(optics.premultiplied[:, None], doubled, derivative)
    return derivative * inverse_deviation(optics, band, noise)


def _sum_by(unit: Int[Tensor, "b"], values: Float[Tensor, "b"], count: int) -> Float[Tensor, "{count}"]:
    return torch.zeros(count, dtype=torch.float64).index_add_(0, unit, values.double().cpu())
