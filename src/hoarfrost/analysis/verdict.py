"""What a run's figures mean in plain words: whether to trust the map, and what to do where not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hoarfrost.analysis.fsc import HalfMapFSC

Level = Literal["good", "caution", "bad"]

COMMON_MARGIN = 0.75
"""Halves of pure noise agree about as far as the map they grew from; a result must go clearly beyond."""

ALIKE = 0.8
"""Mean Fourier shell correlation from which on two first maps count as the same."""

DIFFERENT = 0.5
"""Below this they share an outline at most: maps of noise, or of views on a great circle, reach 0.1 to 0.5."""

CLEARLY_WITHOUT_AXES = 0.7
"""Asymmetric particles reach 0.4 to 0.75 with the best of all axes; symmetric ones 0.95."""

_HEADLINES: dict[Level, str] = {
    "good": "The run looks sound.",
    "caution": "Usable, with reservations.",
    "bad": "Do not trust this map.",
}


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on; what was not measured is None."""

    particles: int | None = None
    diameter: float | None = None  # Å
    fsc: HalfMapFSC | None = None
    agreement: float | None = None  # mean FSC of the chosen start's map with that of the best other
    division: float | None = None  # agreement (Cohen's kappa) of the division into classes with the best other
    axes: float | None = None  # mean FSC of the start's map with its copies turned by the point group
    confidence: float | None = None  # median over particles
    unseen: float | None = None  # share of Fourier directions without data
    common: float | None = None  # Å; resolution of what the halves had in common at first
    near: bool = False  # whether poses were sought only near those that were given


@dataclass(frozen=True)
class Verdict:
    """A headline, its level, and the sentences behind it, gravest first."""

    level: Level
    headline: str
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()  # those of the reasons that speak against the map


def judge(evidence: Evidence) -> Verdict:
    """The verdict on a run: the gravest of what its parts say."""
    remarks = [
        *_of_halves(evidence),
        *_of_starts(evidence),
        *_of_division(evidence),
        *_of_axes(evidence),
        *_of_views(evidence),
        *_of_poses(evidence),
    ]
    levels: tuple[Level, ...] = ("bad", "caution", "good")
    ordered = sorted(remarks, key=lambda remark: levels.index(remark[0]))
    level: Level = ordered[0][0] if ordered else "good"
    reasons = tuple(text for _, text in ordered)
    warnings = tuple(text for level, text in ordered if level != "good")
    return Verdict(level, _HEADLINES[level], reasons, warnings)


Remark = tuple[Level, str]


def _of_halves(evidence: Evidence) -> list[Remark]:
    fsc = evidence.fsc
    if fsc is None:
        return []
    resolution = fsc.resolution()
    side = 1 / float(fsc.frequency[1])
    scale = evidence.diameter or 0.6 * side
    if resolution > scale / 4:
        return [
            (
                "bad",
                f"The half-maps agree only to {resolution:.0f} Å, a quarter of the particle's size or worse: nothing "
                "beyond its outline was found. The images may hold mostly noise, or their contrast or CTF is wrong.",
            )
        ]
    if evidence.common is not None and resolution > evidence.common * COMMON_MARGIN:
        return [
            (
                "bad",
                f"The half-maps agree only to {resolution:.0f} Å, hardly further than the map that both began with "
                f"({evidence.common:.0f} Å): there may be no common structure in these images. Check that they hold "
                "particles, their contrast and their CTF.",
            )
        ]
    if not (fsc.corrected[1:] < 0.143).any():
        return [
            (
                "good",
                f"The half-maps agree all the way to the pixel limit ({resolution:.2f} Å): a smaller pixel may show "
                "more. If that is finer than you expected, look for duplicate particles in the stack.",
            )
        ]
    unmasked = fsc.resolution(curve="unmasked")
    remarks: list[Remark] = [
        (
            "good",
            f"Maps of the two halves of the data, refined apart, agree to {resolution:.1f} Å "
            f"(FSC 0.143, corrected for the mask; {unmasked:.1f} Å without a mask).",
        )
    ]
    if unmasked > 3 * resolution:
        remarks.append(
            (
                "caution",
                "The resolution rests heavily on the mask: check that the mask is not tighter than the particle.",
            )
        )
    return remarks


def _of_starts(evidence: Evidence) -> list[Remark]:
    agreement = evidence.agreement
    if agreement is None:
        return []
    found = f"their maps, one laid over the other, correlate by {agreement:.2f}"
    if agreement < DIFFERENT:
        text = (
            f"Independent starts found different maps ({found}): at most one is right. Run again with --preset careful "
            "and another --seed; if they still differ, the data do not settle the map."
        )
        return [("bad", text)]
    if agreement < ALIKE:
        text = (
            f"Independent starts agree only in part ({found}): the coarse shape is likely right, details may not be. "
            "Run again with --preset careful."
        )
        return [("caution", text)]
    return [("good", f"Independent random starts came to the same map: {found}.")]


def _of_division(evidence: Evidence) -> list[Remark]:
    division = evidence.division
    if division is None:
        return []
    found = f"they put the same particles together to {100 * division:.0f} % (chance is 0)"
    if division < ALIKE:
        text = (
            f"Independent divisions of the particles into classes disagree ({found}): the classes may divide noise. "
            "Try fewer classes."
        )
        return [("caution", text)]
    return [("good", f"Independent divisions of the particles came to the same classes: {found}.")]


def _of_axes(evidence: Evidence) -> list[Remark]:
    axes = evidence.axes
    if axes is None:
        return []
    found = f"it correlates with its copies turned by the point group by {axes:.2f}"
    if axes < ALIKE:
        text = (
            f"The map found without symmetry does not show the axes that --symmetry asks for ({found}): the averaged "
            "map may be of no particle at all. Run without --symmetry and look at the map."
        )
        return [("bad" if axes < CLEARLY_WITHOUT_AXES else "caution", text)]
    return [("good", f"The map found without symmetry shows the axes asked for: {found}.")]


def _of_views(evidence: Evidence) -> list[Remark]:
    unseen = evidence.unseen
    if unseen is None or unseen < 0.01:
        return []
    text = (
        f"No view covers {100 * unseen:.0f} % of the directions: the map is smeared along them, whatever the FSC says. "
        "Tilted data or another grid help; so does --symmetry if the particle has one."
    )
    return [("caution", text)]


def _of_poses(evidence: Evidence) -> list[Remark]:
    remarks: list[Remark] = []
    if evidence.confidence is not None and evidence.confidence < 0.5:
        text = (
            f"Half of the poses have a confidence below {evidence.confidence:.2f}: many particles could sit in other "
            "orientations just as well. Remove junk by 2D classification, or add particles."
        )
        remarks.append(("caution", text))
    if evidence.near:
        text = (
            "Poses were refined near those of the table, and no others were tried: a particle in a wrong orientation "
            "stays there, whatever the FSC says. --search global tries all, and gives every pose a confidence."
        )
        remarks.append(("good", text))
    if evidence.particles is not None and evidence.particles < 1000:
        text = (
            f"{evidence.particles:,} particles are few: expect a shape rather than detail, and other maps from other "
            "subsets."
        )
        remarks.append(("caution", text))
    return remarks
