"""What a method of reconstruction must offer: a density of the sums of one half.

With known poses the log-likelihood of the whitened images is a quadratic form in the map, and all that it needs of them
are the sums of their back-projection: the data ``b`` and the weights ``W`` at the nodes of the slice grid
(:class:`~hoarfrost.reconstruct.backprojection.FoldedSums`). Where many views meet, ``b / W`` is the transform of the map
times the gridding kernel, with noise of variance ``1 / W`` up to a constant. A method fits a density to that: Wiener's
division, a mixture of Gaussians, a network. It never sees an image, so that its cost does not depend on their number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.analysis.fsc import HalfMapFSC
from hoarfrost.optimise.loop import State
from hoarfrost.reconstruct.backprojection import FoldedSums
from hoarfrost.representations.base import Density
from hoarfrost.types import Volume


@dataclass(frozen=True)
class FitSetting:
    """What a fit is told beside the sums."""

    box: int  # of the images, and of the grid of the sums
    voxel_size: float  # Å
    radius: float  # Å; there is no density further out
    seed: int  # of this half and this reading of the images alone
    fsc: Float[Tensor, "shells"]  # of the two halves' plain maps, shells 0 ... limit: all that one knows of the other
    mask: Volume | None = None  # where density is sought, in place of the sphere

    def generator(self, step: int) -> torch.Generator:
        """The source of whatever is drawn at random in a step (-1 for :meth:`DensityFit.begin`)."""
        return torch.Generator().manual_seed(self.seed + 1_000_003 * (step + 1))


@runtime_checkable
class DensityFit(Protocol):
    """A method that makes a density of the sums of one half, in steps of some seconds at most.

    Sums and states lie on one device. A step is a deterministic function of what it is given.
    """

    @property
    def name(self) -> str:
        """As ``--method`` has it."""
        ...

    @property
    def steps(self) -> int:
        """How many steps a fit takes; at least one."""
        ...

    def begin(self, sums: FoldedSums, setting: FitSetting, previous: State | None) -> State:
        """The state before the first step.

        ``previous`` is the last state of the fit to go on from: that of the last reading of the images or, where all
        images are fitted, of the first half.
        """
        ...

    def run(self, sums: FoldedSums, setting: FitSetting, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Do step ``step`` (from 0): the next state, and figures to show. ``state`` must be left as it is."""
        ...

    def density(self, state: State, setting: FitSetting) -> Density:
        """The density, as poses and contrast are measured against it."""
        ...

    def joined(self) -> DensityFit | None:
        """The fit of all images; None if :meth:`half_map` and :meth:`final_map` read nothing but the sums."""
        ...

    def half_map(self, sums: FoldedSums, setting: FitSetting, state: State) -> Volume:
        """The map of a half on the grid's box, as it is validated: neither masked nor filtered by the FSC."""
        ...

    def final_map(
        self, halves: tuple[FoldedSums, FoldedSums], setting: FitSetting, state: State, fsc: HalfMapFSC
    ) -> Volume:
        """The map of all images, filtered by an FSC of the half-maps; ``state`` is that of :meth:`joined`'s fit."""
        ...
