"""Poses that are known, as an estimator."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from hoarfrost.data.dataset import BandImages
from hoarfrost.poses.base import PosePosterior
from hoarfrost.representations.base import Density


@dataclass(frozen=True)
class FixedPoses:
    """The poses of a batch as a file or a simulation gives them; shifts in pixels."""

    rotations: Float[Tensor, "b 3 3"]
    shifts: Float[Tensor, "b 2"]

    def estimate(self, images: BandImages, density: Density) -> PosePosterior:
        """The one known pose of every image, with its log-likelihood."""
        slices = images.transfer * density.project(self.rotations, images.band, images.frequency_matrix)
        cross = images.centred(self.shifts).vectors * slices.conj()
        likelihood = (2 * cross.real - slices.abs().square()).sum(-1, keepdim=True)
        return PosePosterior(self.rotations[:, None], self.shifts[:, None], likelihood)
