"""Projections of anisotropic Gaussians by evaluating each of their transforms at each coefficient: exact and slow."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hoarfrost.fourier.band import Band
from hoarfrost.kernels.threads import in_parts, map_parts

NUMBERS_AT_ONCE = 1 << 20
"""Pairs of a Gaussian and a coefficient that are worked on together."""


def direct_projections(
    positions: Float[Tensor, "b 2 n"], masses: Float[Tensor, "n"], covariances: Float[Tensor, "b 3 n"], band: Band
) -> Complex[Tensor, "b m"]:
    """Band vectors of the images of Gaussians, as orthonormal transforms; differentiable in all three.

    Parameters
    ----------
    positions : of the centres in each image, (x, y) in pixels about the origin.
    masses : sums over the image.
    covariances : xx, yy, xy in squared pixels.
    band : coefficients, and the box of the images.
    """
    result = _DirectSum.apply(positions, masses / band.box, covariances, band)
    assert isinstance(result, Tensor)
    return torch.view_as_complex(result)


class _DirectSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, positions: Tensor, masses: Tensor, covariances: Tensor, band: Band) -> Tensor:
        ctx.save_for_backward(positions, masses, covariances)
        ctx.band = band
        positions, masses, covariances = positions.detach(), masses.detach(), covariances.detach()
        frequency, square = _frequencies(band, positions)

        def project(image: int) -> Tensor:
            result = positions.new_zeros(len(frequency), 2)
            for some in _parts(positions, band):
                weight = (square @ covariances[image, :, some]).exp_().mul_(masses[some])
                angle = frequency @ positions[image, :, some]
                result[:, 0] += (angle.cos() * weight).sum(-1)
                result[:, 1] -= (angle.sin_() * weight).sum(-1)
            return result

        return torch.stack(map_parts(project, range(len(positions)), positions.device))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        positions, masses, covariances = (one.detach() for one in ctx.saved_tensors)
        frequency, square = _frequencies(ctx.band, positions)
        by_position, by_covariance = torch.empty_like(positions), torch.empty_like(covariances)

        def differentiate(image: int) -> Tensor:
            """Writes what belongs to the image; returns the gradient by mass."""
            by_mass = torch.empty_like(masses)
            real, imaginary = gradients[0][image].detach().unbind(-1)
            for some in _parts(positions, ctx.band):
                weight = (square @ covariances[image, :, some]).exp_()
                angle = frequency @ positions[image, :, some]
                cosine, sine = angle.cos().mul_(weight), angle.sin_().mul_(weight)
                along = real[:, None] * cosine - imaginary[:, None] * sine
                by_mass[some] = along.sum(0)
                by_covariance[image, :, some] = (square.mT @ along) * masses[some]
                across = sine.mul_(-real[:, None]) - cosine.mul_(imaginary[:, None])
                by_position[image, :, some] = (frequency.mT @ across) * masses[some]
            return by_mass

        by_mass = torch.stack(map_parts(differentiate, range(len(positions)), positions.device)).sum(0)
        return by_position, by_mass, by_covariance, None


def _frequencies(band: Band, like: Tensor) -> tuple[Float[Tensor, "m 2"], Float[Tensor, "m 3"]]:
    """``2 pi k / D``, and what the covariances are multiplied with in the exponent."""
    frequency = (2 * math.pi * band.frequency).to(like)
    x, y = frequency.unbind(-1)
    return frequency, torch.stack([-0.5 * x * x, -0.5 * y * y, -x * y], dim=-1)


def _parts(positions: Tensor, band: Band) -> list[slice]:
    return in_parts(positions.shape[2], max(1, NUMBERS_AT_ONCE // len(band)))
