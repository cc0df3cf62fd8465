"""How far a result is from a known truth: poses, shifts and map, after the best common frame of either hand."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hoarfrost.analysis.alignment import GlobalAlignment, align_rotations, fit_origin, rotation_errors
from hoarfrost.analysis.fsc import HalfMapFSC, validate_half_maps
from hoarfrost.analysis.map_to_truth import MapToTruth, class_maps_to_truths, map_to_truth
from hoarfrost.data.simulate import JUNK_COLUMN
from hoarfrost.errors import InputError
from hoarfrost.io.relion import RelionTable
from hoarfrost.types import HalfMaps, Particles, Poses, Volume

TRUSTED_AGREEMENT = 0.2
"""Share of agreeing poses from which on they are trusted with the start of the map alignment."""


@dataclass(frozen=True)
class PoseScores:
    """Errors of poses in the common frame; angles in degrees, lengths in pixels of the images.

    ``frobenius`` is ``||R_est - R_true||_F = 2 sqrt(2) sin(angle / 2)``, not squared, as CryoFastAR reports its mean.
    ``partner_share`` is the share of particles beyond 30 degrees: those in a pseudo-symmetric or otherwise wrong
    orientation. ``shift_after_origin`` leaves out the one move of the map's origin that no image can tell.
    """

    particles: int
    hand: Literal["same", "mirrored"]
    median: float
    mean: float
    below_10: float
    partner_share: float
    frobenius_mean: float
    frobenius_median: float
    shift_mean: float
    shift_after_origin: float


@dataclass(frozen=True)
class ClassScores:
    """How far classes and junk are those of the truth; shares of particles, None where there is nothing to compare."""

    right: float | None  # of the true particles, in the class that stands for theirs
    stand_for: dict[int, int]  # the true class that each class stands for
    junk_found: float | None  # of the true junk
    particles_lost: float | None  # of the true particles, taken for junk

    def to_dict(self) -> dict[str, object]:
        """What was compared."""
        values = {
            "right": self.right,
            "stand_for": {str(found): true for found, true in self.stand_for.items()} or None,
            "junk_found": self.junk_found,
            "particles_lost": self.particles_lost,
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Scores:
    """What :func:`evaluate` finds: errors of the poses, and of the maps where they were given."""

    poses: PoseScores
    junk: int
    symmetry: str
    map_to_truth: MapToTruth | None = None
    class_maps: Mapping[int, tuple[int, MapToTruth]] = field(default_factory=dict)  # by class: the truth it is like
    half_maps: HalfMapFSC | None = None
    classes: ClassScores | None = None

    def to_dict(self) -> dict[str, object]:
        """The layout of ``scores.json``; resolutions in Å, masked ones corrected by phase randomisation."""
        poses = self.poses
        scores: dict[str, object] = {
            "particles": poses.particles,
            "junk": self.junk,
            "symmetry": self.symmetry,
            "hand": poses.hand,
            "rotation_deg": {"median": poses.median, "mean": poses.mean, "below_10": poses.below_10},
            "rotation_frobenius": {"mean": poses.frobenius_mean, "median": poses.frobenius_median},
            "partner_share": poses.partner_share,
            "shift_px": {"mean": poses.shift_mean, "after_origin": poses.shift_after_origin},
        }
        if self.map_to_truth is not None:
            scores |= self.map_to_truth.to_dict()
        if self.class_maps:
            scores["class_maps"] = {
                str(number): {"truth": true, **compared.to_dict()}
                for number, (true, compared) in self.class_maps.items()
            }
        if self.classes is not None:
            scores["classes"] = self.classes.to_dict()
        if self.half_maps is not None:
            scores["half_maps_0.143_angstrom"] = self.half_maps.resolution(0.143)
        return scores

    def to_json(self) -> str:
        """The text of ``scores.json``."""
        return json.dumps(self.to_dict(), indent=2) + "\n"


def evaluate(
    particles: Particles,
    truth: Particles,
    *,
    map: Volume | None = None,
    half_maps: HalfMaps | None = None,
    mask: Volume | None = None,
    truth_map: Volume | None = None,
    class_maps: Mapping[int, Volume] | None = None,
    truth_maps: Mapping[int, Volume] | None = None,
    symmetry: str = "C1",
) -> Scores:
    """Score a result against the truth.

    Parameters
    ----------
    particles, truth : Particles
        Both with poses. Rows are matched by image where both come from tables, else by order; junk in the truth does
        not count.
    map, truth_map : Volume, optional
        The map is laid over the true one and compared as it is and under a mask made from the true one.
    class_maps, truth_maps : mapping of int to Volume, optional
        Maps by the number of their class: each is compared with the true one that it is most like.
    half_maps, mask : optional
        Give the resolution that the data alone claim.
    symmetry : str
        Point group of the true object.

    Raises
    ------
    InputError
        If poses are missing or no particle is found in the truth.
    """
    rows, true_rows = match_particles(particles, truth)
    junk = _is_junk(truth)[true_rows]
    true_classes = None if truth.classes is None else truth.classes[true_rows]
    classes = score_classes(particles[rows], true_classes, junk)
    rows, true_rows = rows[~junk], true_rows[~junk]
    estimated, true = _poses(particles, "the result"), _poses(truth, "the truth")
    frame = align_rotations(estimated[rows].rotations, true[true_rows].rotations, symmetry=symmetry)
    poses = score_poses(
        estimated[rows], true[true_rows], particles.optics.pixel_size[rows], frame=frame, symmetry=symmetry
    )
    scores = Scores(poses, int(junk.sum()), symmetry, classes=classes)
    start = frame if frame.agreement > TRUSTED_AGREEMENT else None
    if map is not None and truth_map is not None:
        scores = replace(scores, map_to_truth=map_to_truth(map, truth_map, start))
    if class_maps and truth_maps:
        scores = replace(scores, class_maps=class_maps_to_truths(class_maps, truth_maps, start))
    if half_maps is not None:
        scores = replace(scores, half_maps=validate_half_maps(half_maps, mask))
    return scores


def score_classes(
    particles: Particles, true_classes: Int[Tensor, "n"] | None, true_junk: Bool[Tensor, "n"]
) -> ClassScores | None:
    """Compare classes, under the renaming that makes most of them right, and junk with the truth of the same rows."""
    if particles.classes is None and particles.junk is None:
        return None
    right, names = None, dict[int, int]()
    if particles.classes is not None and true_classes is not None and not bool(true_junk.all()):
        found, true = particles.classes[~true_junk], true_classes[~true_junk]
        names = best_names(found, true)
        renamed = torch.tensor([names.get(number, -1) for number in found.tolist()])
        right = float((renamed == true).double().mean())
    recognised = lost = None
    if particles.junk is not None:
        flagged = (particles.junk > 0.5).double()
        recognised = float(flagged[true_junk].mean()) if bool(true_junk.any()) else None
        lost = None if bool(true_junk.all()) else float(flagged[~true_junk].mean())
    return ClassScores(right, names, recognised, lost)


def best_names(found: Int[Tensor, "n"], true: Int[Tensor, "n"]) -> dict[int, int]:
    """For every class found the true one that it stands for, one for one, so that most particles are right."""
    names, real = found.unique().tolist(), true.unique().tolist()
    if max(len(names), len(real)) > 8:
        raise InputError(f"{max(len(names), len(real))} classes are too many to compare; at most 8 are")
    table = {(f, t): int(((found == f) & (true == t)).sum()) for f in names for t in real}
    pairings = (
        [list(zip(names, order, strict=True)) for order in itertools.permutations(real, len(names))]
        if len(names) <= len(real)
        else [list(zip(order, real, strict=True)) for order in itertools.permutations(names, len(real))]
    )
    return dict(max(pairings, key=lambda pairs: sum(table[pair] for pair in pairs)))


def score_poses(
    estimated: Poses,
    truth: Poses,
    pixel_size: Float[Tensor, "n"],
    *,
    frame: GlobalAlignment,
    symmetry: str = "C1",
) -> PoseScores:
    """Errors of poses of the same particles in a common frame; ``pixel_size`` in Å."""
    angle = rotation_errors(frame.apply(estimated.rotations), truth.rotations, symmetry=symmetry).double()
    degrees, chord = angle.rad2deg(), 2 * math.sqrt(2) * torch.sin(angle / 2)
    near = degrees < 10 if bool((degrees < 10).any()) else torch.ones_like(degrees, dtype=torch.bool)
    difference = (estimated.shifts - truth.shifts).double()
    origin = fit_origin(estimated.shifts[near], truth.shifts[near], truth.rotations[near])
    rest = difference - (truth.rotations[:, :2].double() @ origin)
    pixels = [(torch.linalg.vector_norm(d, dim=-1) / pixel_size).mean() for d in (difference, rest)]
    return PoseScores(
        particles=len(degrees),
        hand="mirrored" if frame.mirrored else "same",
        median=float(degrees.median()),
        mean=float(degrees.mean()),
        below_10=float((degrees < 10).double().mean()),
        partner_share=float((degrees > 30).double().mean()),
        frobenius_mean=float(chord.mean()),
        frobenius_median=float(chord.median()),
        shift_mean=float(pixels[0]),
        shift_after_origin=float(pixels[1]),
    )


def match_particles(particles: Particles, truth: Particles) -> tuple[Int[Tensor, "n"], Int[Tensor, "n"]]:
    """Rows of the particles that the truth knows, and their rows in it.

    An image is known by its number in the stack and the stack's file name; where the truth has that twice, by the
    whole path. Without tables rows are matched by order.

    Raises
    ------
    InputError
        If nothing matches, or numbers differ where order has to do.
    """
    if particles.source is None or truth.source is None:
        if len(particles) != len(truth):
            raise InputError(
                f"{len(particles)} particles and {len(truth)} true poses: without tables that name the images the "
                "numbers must be equal"
            )
        return torch.arange(len(truth)), torch.arange(len(truth))
    for whole_path in (False, True):
        known = {name: row for row, name in enumerate(_image_names(truth, whole_path))}
        if len(known) == len(truth):
            break
    else:
        raise InputError(f"{truth.source.path}: an image is listed twice; the truth must name each image once")
    found = [known.get(name, -1) for name in _image_names(particles, whole_path)]
    true_rows = torch.tensor(found, dtype=torch.int64)
    rows = (true_rows >= 0).nonzero().flatten()
    if len(rows) == 0:
        name = _image_names(particles, whole_path)[0]
        raise InputError(
            f"{particles.source.path}: no image is found in {truth.source.path} (the first is {name[1] + 1} of "
            f"{name[0]}); give the truth of the same stack"
        )
    return rows, true_rows[rows]


def _image_names(particles: Particles, whole_path: bool) -> list[tuple[str, int]]:
    names = particles.source.image_names()
    files = [file if whole_path else PurePath(file).name for file in names.files]
    return [(files[file], index) for file, index in zip(names.file.tolist(), names.index.tolist(), strict=True)]


def _is_junk(truth: Particles) -> Bool[Tensor, "n"]:
    """Images without a particle: a column of their own in simulated tables, class 0 in memory."""
    table = truth.source
    if isinstance(table, RelionTable) and JUNK_COLUMN in table.particles:
        return torch.from_numpy(table.particles.numbers(JUNK_COLUMN) != 0)
    if table is None and truth.classes is not None:
        return truth.classes == 0
    return torch.zeros(len(truth), dtype=torch.bool)


def _poses(particles: Particles, what: str) -> Poses:
    if particles.poses is None:
        name = what if particles.source is None else f"{particles.source.path}: {what}"
        raise InputError(f"{name} has no poses; give a table with rlnAngleRot, rlnAngleTilt and rlnAnglePsi")
    return particles.poses
