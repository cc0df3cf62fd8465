"""What a report can show, as plain data: any method fills in what it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from hoarfrost.analysis.fsc import HalfMapFSC
from hoarfrost.analysis.verdict import Evidence
from hoarfrost.types import HalfMaps, Particles, Volume


@dataclass(frozen=True)
class Start:
    """One independent start: its mean score after each iteration, and whether the run went on from it.

    ``agreement`` is the mean Fourier shell correlation of its map with the chosen start's, one laid over the other;
    both hands count as the same.
    """

    label: str
    scores: tuple[float, ...] = ()
    chosen: bool = False
    agreement: float | None = None


@dataclass(frozen=True)
class ClassShown:
    """One class: its map, its resolution in Å, and what the verdict on it is."""

    number: int
    particles: int
    map: Volume
    fsc: HalfMapFSC
    headline: str
    resolution: float


@dataclass(frozen=True)
class ReportData:
    """What a report can show. Everything is optional; a section without data is left out."""

    title: str = "Ab initio reconstruction"
    map: Volume | None = None
    half_maps: HalfMaps | None = None
    mask: Volume | None = None
    fsc: HalfMapFSC | None = None
    local_resolution: Volume | None = None  # Å
    evidence: Evidence | None = None  # for the verdict; of the FSC alone where not given
    particles: Particles | None = None  # with poses, halves and confidence
    diameter: float | None = None  # Å
    symmetry: str = "C1"
    starts: tuple[Start, ...] = ()
    classes: tuple[ClassShown, ...] = ()  # shown where there are several
    noise: Float[Tensor, "groups shells"] | None = None  # power per coefficient of the normalised images
    examples: tuple[Float[Tensor, "e y x"], Float[Tensor, "e y x"]] | None = None  # images, reprojections
    timings: Mapping[str, float] = field(default_factory=dict)  # seconds by stage, in order
    peak_fraction: Mapping[str, float] = field(default_factory=dict)  # of the peak of its products, by stage
    warnings: tuple[str, ...] = ()
    scores: Mapping[str, Any] | None = None  # against a truth, as in scores.json
