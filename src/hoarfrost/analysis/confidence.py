"""What a confidence claims, how it is made from likelihoods, and how far it holds.

The confidence of a pose is the probability that its orientation is within :data:`RIGHT_WITHIN` of the truth, modulo the
point group and the one frame that no image can tell, if the image shows the particle of the map.

The evidence for a pose is its *gap*: how much likelier the image is at it than at the other optima that were looked at.
Taken at its face value a gap says too much. The other optima are few, the map is not the truth, and likelihoods of best
poses are not integrals over poses. How much a gap is worth is therefore measured: on images simulated from the map of
the run, whose poses are known, and which went through the same search.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

RIGHT_WITHIN = math.radians(10)
"""A pose this near the truth is right."""

LARGEST_GAP = 25.0
"""Nats beyond which a gap says no more; also the gap of a pose without a rival."""

FACE_VALUE = (-8.0, -4.0, -2.0, 0.0, 2.0, 4.0, 8.0)
"""Gaps of the images that every calibration has seen beforehand, one each, and right at the gap's face value.

They count little beside hundreds, and decide where no simulated image does: where all of them were right.
"""

SCORINGS = 100
"""Steps towards the likeliest calibration: some ten are enough, and all cost next to nothing."""


def likelihood_gap(log_likelihood: Float[Tensor, "b c"], chosen: Int[Tensor, "b"]) -> Float[Tensor, "b"]:
    """Log-likelihood of the chosen candidate over that of all others together, within :data:`LARGEST_GAP`.

    Candidates of log-likelihood ``-inf`` are none.
    """
    picked = chosen[:, None]
    others = log_likelihood.scatter(1, picked, -torch.inf)
    gap = log_likelihood.gather(1, picked)[:, 0] - others.logsumexp(1)
    return gap.clamp(-LARGEST_GAP, LARGEST_GAP)


@dataclass(frozen=True)
class Calibration:
    """Probability of a pose to be right by its gap ``g``: ``ceiling / (1 + exp(-slope (g - middle)))``.

    The ceiling is the share of right poses where nothing speaks for another optimum: what is missing to one are poses
    in the right optimum and off by more than :data:`RIGHT_WITHIN`, and those whose right optimum was not looked at.
    """

    ceiling: float
    slope: float
    middle: float

    def probability(self, gap: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """The confidence at these gaps."""
        return self.ceiling * torch.sigmoid(self.slope * (gap - self.middle))

    @classmethod
    def of(cls, gap: Float[Tensor, "n"], right: Bool[Tensor, "n"]) -> Calibration:
        """The likeliest calibration for images of which it is known whether their poses are right."""
        prior = torch.tensor(FACE_VALUE, dtype=torch.float64)
        gaps = torch.cat([gap.double().cpu(), prior])
        share = torch.cat([right.double().cpu(), torch.sigmoid(prior)])
        # The logit of the ceiling and the logarithm of the slope have no bounds to run into.
        free, damping = torch.tensor([4.0, -1.0, 0.0], dtype=torch.float64), 1e-3
        loss, slope, curvature = _scoring(free, gaps, share)
        for _ in range(SCORINGS):
            ridge = torch.diag(damping * curvature.diagonal() + 1e-12)
            # Far off in one step the logit of the ceiling would not come back: there it makes no difference any more.
            trial = free - torch.linalg.solve(curvature + ridge, slope).clamp(-1, 1)
            value, *derivatives = _scoring(trial, gaps, share)
            if value < loss:
                free, loss, (slope, curvature), damping = trial, value, derivatives, 0.1 * damping
            else:
                damping = 10 * damping
        ceiling, steepness, middle = free
        return cls(float(torch.sigmoid(ceiling)), float(steepness.exp()), float(middle))


def _scoring(
    free: Float[Tensor, "3"], gap: Float[Tensor, "n"], share: Float[Tensor, "n"]
) -> tuple[Float[Tensor, ""], Float[Tensor, "3"], Float[Tensor, "3 3"]]:
    """Cross entropy of a calibration, its slope and its expected curvature (Fisher scoring)."""
    ceiling, steepness, middle = free[0], free[1].exp(), free[2]
    odds = steepness * (gap - middle)
    right = logsigmoid(ceiling) + logsigmoid(odds)
    wrong = torch.logaddexp(logsigmoid(-ceiling), logsigmoid(ceiling) + logsigmoid(-odds))
    loss = -(share * right + (1 - share) * wrong).mean()
    falling = torch.sigmoid(-odds)
    # Derivatives of the logarithm of the stated probability.
    rows = torch.stack([torch.sigmoid(-ceiling).expand_as(gap), falling * odds, -falling * steepness])
    stated, other = right.exp(), wrong.exp().clamp(min=1e-300)
    slope = rows @ ((stated - share) / other) / len(gap)
    return loss, slope, (rows * (stated / other)) @ rows.mT / len(gap)


@dataclass(frozen=True)
class Reliability:
    """What confidences state and what is true, by tenths of the particles or of the range."""

    stated: Float[Tensor, "k"]  # mean confidence; nan in a tenth without particles
    right: Float[Tensor, "k"]  # share of right poses
    count: Int[Tensor, "k"]

    def largest_difference(self, least: int = 1) -> float:
        """The largest of ``|stated - right|`` in those tenths that hold at least so many particles; nan without any."""
        held = self.count >= least
        return float((self.stated - self.right)[held].abs().max()) if bool(held.any()) else math.nan


def reliability(
    confidence: Float[Tensor, "n"], right: Bool[Tensor, "n"], bins: int = 10, *, by: Literal["range", "rank"] = "range"
) -> Reliability:
    """The reliability curve of confidences.

    Parameters
    ----------
    confidence : stated probabilities of poses to be right.
    right : whether they are.
    bins : parts into which the particles are divided.
    by : parts of equal width from 0 to 1 (``"range"``), or of equally many particles (``"rank"``, deciles if ten).
    """
    stated, held = confidence.double().cpu(), right.double().cpu()
    if by == "range":
        part = (stated * bins).long().clamp(0, bins - 1)
    else:
        part = torch.empty(len(stated), dtype=torch.int64)
        part[stated.argsort(stable=True)] = torch.arange(len(stated)) * bins // max(1, len(stated))
    count = torch.bincount(part, minlength=bins)
    sums = [torch.zeros(bins, dtype=torch.float64).index_add(0, part, values) for values in (stated, held)]
    return Reliability(sums[0] / count, sums[1] / count, count)
