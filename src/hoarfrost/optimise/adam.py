"""Adam over named tensors that a checkpoint can hold, each with a rate of its own.

Kingma and Ba, arXiv 1412.6980. The moments are part of the state and not of an object, so that a resumed fit goes on
exactly, and so that rows can be exchanged together with what they stand for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

Named = dict[str, Tensor]


@dataclass(frozen=True)
class Adam:
    """Rates by name, and how long gradients and their squares are remembered."""

    rates: Mapping[str, float]
    first: float = 0.9
    second: float = 0.99
    epsilon: float = 1e-15

    def begin(self, tensors: Named) -> Named:
        """Moments of no step."""
        return {f"{moment}.{name}": one.new_zeros(one.shape) for name, one in tensors.items() for moment in "mv"}

    def step(self, tensors: Named, gradients: Named, moments: Named, count: int, scale: float) -> tuple[Named, Named]:
        """Step ``count`` (from 0) at ``scale`` times the rates: new tensors and moments."""
        moved: Named = {}
        kept: Named = {}
        corrections = 1 - self.first ** (count + 1), 1 - self.second ** (count + 1)
        for name, value in tensors.items():
            gradient = gradients[name]
            mean = moments[f"m.{name}"].lerp(gradient, 1 - self.first)
            square = moments[f"v.{name}"].lerp(gradient.square(), 1 - self.second)
            direction = mean / corrections[0] / ((square / corrections[1]).sqrt() + self.epsilon)
            moved[name] = value - scale * self.rates[name] * direction
            kept |= {f"m.{name}": mean, f"v.{name}": square}
        return moved, kept


def warm_up(count: int, steps: int) -> float:
    """Up to 1 in so many steps: the first gradients alone do not tell how long a step should be."""
    return min(1.0, (count + 1) / steps)


def cosine_decay(progress: float, last: float) -> float:
    """From 1 at ``progress`` 0 to ``last`` at 1."""
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
