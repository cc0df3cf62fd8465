"""What a round of the second search asks of a batch of images: which pose they have, and how much likelier it is.

The same contests serve for particles, which have a pose already, and for simulated images, which have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.poses.likelihood import SliceBank
from hoarfrost.reconstruct.half_maps import HalfMapPair
from hoarfrost.reconstruct.rivals import Contest, Rivals
from hoarfrost.representations.voxel import FourierVolume

DOUBTFUL = 10.0
"""A pose is in doubt with a smaller gap than this ..."""

POOR = -1.5
"""... or if its image fits worse than this (see :meth:`hoarfrost.reconstruct.rivals.Contest.fit`)."""

SEARCHED_BLIND = 3
"""How often images without a pose are searched at most; more often finds next to nothing that is better."""

Batch = tuple[int, HalfMapPair, BandImages]
"""Images of a half, and the maps of which that of their half decides on them."""

# By half and order of the grid: the map, the frame, and the slices of the one in the other.
Banks = dict[tuple[int, int], tuple[FourierVolume, int, SliceBank]]


@dataclass(frozen=True)
class Contests:
    """The maps and noise of a round, and how rivals are found in it.

    In faint images the right pose often is not among the best of a coarse grid: rounds after the first seek those in
    doubt on a ``finer`` one.
    """

    pair: HalfMapPair
    band: Band
    weight: Float[Tensor, "m"]
    rivals: Rivals
    finer: bool
    own_share: float  # nats by which an image's own noise in the map speaks for its present pose
    frame: int  # seed of the rotation of the grid
    device: torch.device
    banks: Banks = field(default_factory=dict, repr=False, compare=False)  # slices of the grid, for the next batch

    def density(self, half: int) -> FourierVolume:
        """The map of a half."""
        return self.pair.density(half, self.band.limit, self.device)

    def between(
        self,
        half: int,
        decisive: HalfMapPair,
        images: BandImages,
        present: tuple[Float[Tensor, "b 3 3"], Float[Tensor, "b 2"]] | None = None,
    ) -> tuple[Contest, Float[Tensor, "b"]]:
        """The contest of these images in a map of their own half, and gaps in that of the other.

        Rivals are sought near the present shifts, or of images without a pose at all of them; for particles that this
        leaves in doubt at all shifts. That may be of the half's whole map: where to look, unlike what decides, may be
        asked of a map that holds the image.
        """
        own, other = decisive.density(half, self.band.limit, self.device), self.density(3 - half)
        rivals, weight, ahead = self.rivals, self.weight, 0.0 if present is None else self.own_share
        about = None if present is None else present[1]
        found = rivals.search(images, self._bank(rivals, half, own), weight, about)
        rotations, shifts = found.best if present is None else present
        contest = rivals.compete(images, own, weight, rotations, shifts, found, ahead)
        gap = contest.gap(images, other, weight)
        doubtful = ((gap < DOUBTFUL) | (contest.fit(images, own, weight) < POOR)).nonzero()[:, 0]
        if len(doubtful):
            few = images[doubtful.to(images.vectors.device)]
            rivals = rivals.finer() if self.finer else rivals
            found = rivals.search(few, self._bank(rivals, half, self.density(half)), weight)
            wider = rivals.compete(few, own, weight, rotations[doubtful], shifts[doubtful], found, ahead)
            contest = contest.replaced(doubtful, wider)
            gap = gap.index_copy(0, doubtful, wider.gap(few, other, weight))
        return contest, gap

    def between_unknown(self, batches: Sequence[Batch], rounds: int) -> list[tuple[Contest, Float[Tensor, "b"]]]:
        """The same for images of which nothing is known, by as many rounds as particles have had.

        What comes of the last one only is not what particles are left with: wrong poses of theirs are the likeliest of
        many grids.
        """
        found = [self.between(*batch) for batch in batches]
        for number in range(1, min(rounds, SEARCHED_BLIND)):
            # Images that were simulated have no share in the maps.
            again = replace(self, own_share=0.0, frame=self.frame + number)
            found = [again.between(*batch, contest.best) for batch, (contest, _) in zip(batches, found, strict=True)]
        return found

    def _bank(self, rivals: Rivals, half: int, density: FourierVolume) -> SliceBank:
        """The slices of a map of a half on the grid of rivals, turned by the frame; kept for the next batch."""
        key = half, rivals.model.orientations.order
        kept = self.banks.get(key)
        if kept is None or kept[0] is not density or kept[1] != self.frame:
            turn = random_rotations(1, torch.Generator().manual_seed(self.frame))[0]
            kept = self.banks[key] = density, self.frame, rivals.bank(density, self.band, self.weight, turn)
        return kept[2]
