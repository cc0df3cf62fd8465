"""What a pose estimator answers: a posterior over a few candidate poses for every image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.data.dataset import BandImages
from hoarfrost.representations.base import Density


@dataclass(frozen=True)
class PosePosterior:
    """Candidate poses of a batch, best first; shifts in pixels of the image, log-likelihoods up to a constant."""

    rotations: Float[Tensor, "b c 3 3"]
    shifts: Float[Tensor, "b c 2"]
    log_likelihood: Float[Tensor, "b c"]

    @property
    def weights(self) -> Float[Tensor, "b c"]:
        """Posterior probabilities of the candidates."""
        return torch.softmax(self.log_likelihood, dim=-1)

    @property
    def mode(self) -> tuple[Float[Tensor, "b 3 3"], Float[Tensor, "b 2"]]:
        """The best rotation and shift of every image."""
        return self.rotations[:, 0], self.shifts[:, 0]


@runtime_checkable
class PoseEstimator(Protocol):
    """Finds the poses of images given a density."""

    def estimate(self, images: BandImages, density: Density) -> PosePosterior:
        """The posterior over poses of a batch."""
        ...
