"""The window that ends a Gaussian on a grid: smooth at its edge, and without effect on its mass.

With ``q`` the squared distance in deviations and ``Q = window^2`` the edge, a windowed Gaussian is

    g(q) = exp(-q / 2) (1 - (q / Q)^16)^2    for q < Q, else 0.

Value and slope vanish at the edge, so that nothing jumps when a grid point enters or leaves. What the window takes away
from the mass is a constant of the window, and given back; at 4.5 deviations all this changes a Gaussian by 5e-4.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from jaxtyping import Float
from torch import Tensor

WINDOW = 4.5
"""Radius of a Gaussian's window in its standard deviations."""


def windowed(q: Float[Tensor, "*p"], edge: float) -> Float[Tensor, "*p"]:
    """``g`` at squared distances ``q`` in deviations."""
    return (-0.5 * q).exp() * _factor(q, edge).square()


def windowed_slope(q: Float[Tensor, "*p"], edge: float) -> Float[Tensor, "*p"]:
    """``dg/dq``."""
    factor = _factor(q, edge)
    return -(-0.5 * q).exp() * factor * (0.5 * factor + 32 / edge * (q / edge).clamp(max=1) ** 15)


@cache
def kept_mass(dimensions: int, window: float) -> float:
    """The share of a Gaussian's mass that its window leaves, in two or three dimensions."""
    nodes, weights = np.polynomial.legendre.leggauss(100)
    radius = 0.5 * window * (nodes + 1)
    profile = np.exp(-0.5 * radius**2) * (1 - (radius / window) ** 32) ** 2 * radius ** (dimensions - 1)
    surface = {2: 1.0, 3: math.sqrt(2 / math.pi)}[dimensions]
    return float(surface * 0.5 * window * (weights * profile).sum())


def _factor(q: Tensor, edge: float) -> Tensor:
    return 1 - (q / edge).clamp(max=1) ** 16
