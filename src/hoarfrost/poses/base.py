"""What a pose estimator answers: a posterior over a few candidate poses for every image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.data.dataset import BandImages
from hoarfrost.geometry.symmetry import symmetric_distance
from hoarfrost.representations.base import Density

NEIGHBOURHOOD = math.radians(20)
"""Radius of what counts as the same answer: beyond the next orientations of a 15-degree grid, short of any other."""


@dataclass(frozen=True)
class PosePosterior:
    """Candidate poses of a batch, best first; shifts in pixels of the image, log-likelihoods up to a constant.

    An image with fewer candidates than others has some of log-likelihood ``-inf`` at the end.
    """

    rotations: Float[Tensor, "b c 3 3"]
    shifts: Float[Tensor, "b c 2"]
    log_likelihood: Float[Tensor, "b c"]
    symmetry: str = "C1"  # point group of the density

    @property
    def weights(self) -> Float[Tensor, "b c"]:
        """Posterior probabilities of the candidates."""
        return torch.softmax(self.log_likelihood, dim=-1)

    @property
    def mode(self) -> tuple[Float[Tensor, "b 3 3"], Float[Tensor, "b 2"]]:
        """The best rotation and shift of every image."""
        return self.rotations[:, 0], self.shifts[:, 0]

    @property
    def confidence(self) -> Float[Tensor, "b"]:
        """Weight of the candidates within :data:`NEIGHBOURHOOD` of the mode, modulo the point group.

        It says how sure the choice between separate orientations is, given the density and that one of the candidates
        is near the truth; not how exact the angle is. Of a single candidate it is 1. It takes the likelihood at its
        face value: a density that is itself wrong makes it too high. What runs write into particle tables is
        calibrated instead (:mod:`hoarfrost.analysis.confidence`).
        """
        mode = self.rotations[:, :1].expand_as(self.rotations)
        near = symmetric_distance(mode, self.rotations, self.symmetry) < NEIGHBOURHOOD
        return (self.weights * near).sum(-1)


@runtime_checkable
class PoseEstimator(Protocol):
    """Finds the poses of images given a density."""

    def estimate(self, images: BandImages, density: Density) -> PosePosterior:
        """The posterior over poses of a batch."""
        ...
