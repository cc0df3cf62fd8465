"""Which images show no particle, judged by how the map explains them.

Two figures say it. The *contrast* is how strong a particle's image is in terms of the map, one for a particle and little
for noise. The *rest* is what the map leaves unexplained in the lowest shells, in deviations of the noise: ice, edges and
aggregates resemble a particle enough to reach some contrast, and leave much. Both are brought to the scale of the
particles; images far out on the bad side of either make up the second component of a mixture.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

FAR = 4.0
"""Deviations from the bulk at which an image is a candidate for junk."""

TAIL = 8.0
"""Degrees of freedom of the distribution of particles: real ones have more outliers than a normal one."""

ROUNDS = 10

LEAST_SHARE = 1e-4
"""Share of junk that is always possible."""

NO_PART = 0.5
"""Share of the particles' median contrast below which an image does not show a part of them either."""


def junk_probability(contrast: Float[Tensor, "n"], rest: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Probability of every image to be junk, by a mixture of particles and junk in the plane of the two figures.

    Particles follow a Student distribution about their median with their median deviation. Junk is spread evenly over
    the quadrant of low contrast and large rest as far as images reach. Without images further out than
    :data:`FAR` there is no junk.
    """
    junk = torch.zeros(len(contrast), dtype=torch.float64)
    if len(contrast) < 20:
        return junk.float()
    for _ in range(ROUNDS):
        bulk = junk <= 0.5
        low = -_deviations(contrast.double(), bulk)
        high = _deviations(rest.double(), bulk)
        square = low.clamp(min=0).square() + high.clamp(min=0).square()
        if not bool((square > FAR**2).any()):
            return torch.zeros_like(contrast)
        share = max(float(junk.mean()), LEAST_SHARE)
        # Particles: a bivariate Student density. Junk: even over a quarter of the disc that holds nearly all images.
        reach = max(float(square.quantile(0.99)), 4 * FAR**2)
        particles = (1 - share) / (2 * math.pi) * (1 + square / TAIL) ** (-(TAIL + 2) / 2)
        others = share / (math.pi * reach / 4)
        junk = torch.where(square > 1, others / (others + particles), 0.0)
    return junk.to(contrast.dtype)


def shows_no_part(contrast: Float[Tensor, "n"], rest: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """One for images with too little contrast even for a composition that lacks much of the map, else zero.

    To a map of several compositions an image of a rare one is what junk is to a map of one: so far off in both figures
    that a mixture takes it for junk.
    """
    return (contrast < NO_PART * contrast.median()).to(contrast.dtype)


def _deviations(values: Float[Tensor, "n"], bulk: Tensor) -> Float[Tensor, "n"]:
    middle = values[bulk].median()
    scale = 1.4826 * (values[bulk] - middle).abs().median()
    return (values - middle) / scale.clamp(min=1e-12)
