"""What an ab initio run found: poses, and for every class its maps and what speaks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from jaxtyping import Bool, Float
from torch import Tensor

from hoarfrost.analysis.fsc import HalfMapFSC
from hoarfrost.analysis.verdict import Evidence, Verdict, judge
from hoarfrost.analysis.views import unseen_share
from hoarfrost.reconstruct.final_maps import FinalMaps
from hoarfrost.types import HalfMaps, Particles, Volume


@dataclass(frozen=True)
class StartRecord:
    """What a start reached."""

    scores: Float[Tensor, "steps"]  # mean best log-likelihood of each step's batch
    final_score: float  # the same for all starts: same images, band and noise
    agreement: float  # mean Fourier shell correlation of its map with the chosen one's
    chosen: bool


@dataclass(frozen=True)
class ClassResult:
    """The maps of one class, and what speaks for them."""

    number: int  # from 1, the largest first
    particles: int
    maps: FinalMaps
    evidence: Evidence

    @cached_property
    def verdict(self) -> Verdict:
        """What the figures of this class mean in plain words."""
        return judge(self.evidence)


@dataclass(frozen=True)
class AbInitioResult:
    """Everything that a run found. With several classes the maps are those of the first, the largest."""

    particles: Particles
    classes: tuple[ClassResult, ...]
    divisions: tuple[float, ...]  # how far each division into classes agrees with the chosen one; empty with one class
    starts: tuple[StartRecord, ...]
    noise: Float[Tensor, "groups shells"]
    diameter: float
    symmetry: str
    timings: dict[str, float]
    throughput: dict[str, float]

    @property
    def map(self) -> Volume:
        """The filtered map."""
        return self.classes[0].maps.map

    @property
    def half_maps(self) -> HalfMaps:
        """The maps of the two halves of the data, as they are."""
        return self.classes[0].maps.half_maps

    @property
    def mask(self) -> Volume:
        """The soft outline of the map."""
        return self.classes[0].maps.mask

    @property
    def fsc(self) -> HalfMapFSC:
        """Correlation of the half-maps."""
        return self.classes[0].maps.fsc

    @property
    def evidence(self) -> Evidence:
        """What the verdict rests on."""
        return self.classes[0].evidence

    @property
    def verdict(self) -> Verdict:
        """What the figures of this result mean in plain words."""
        return self.classes[0].verdict


def class_result(
    particles: Particles, mine: Bool[Tensor, "n"], number: int, maps: FinalMaps, shared: Evidence, symmetry: str
) -> ClassResult:
    """The maps of the particles marked by ``mine``, with the evidence that all classes share completed for them."""
    poses = particles.poses
    assert poses is not None
    poses = poses[mine.nonzero()[:, 0]]
    evidence = replace(
        shared,
        particles=len(poses),
        fsc=maps.fsc,
        confidence=None if poses.confidence is None else float(poses.confidence.double().median()),
        unseen=unseen_share(poses.rotations, symmetry),
    )
    return ClassResult(number, len(poses), maps, evidence)


def second_best(agreement: Sequence[float], chosen: int) -> float | None:
    """The best agreement of any with the chosen one, itself left out."""
    return max((value for i, value in enumerate(agreement) if i != chosen), default=None)
