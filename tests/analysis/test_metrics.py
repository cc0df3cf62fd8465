"""Scores of results whose errors are known because they were put in."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hoarfrost.analysis.metrics import evaluate, match_particles
from hoarfrost.data.simulate import JUNK_COLUMN
from hoarfrost.errors import InputError
from hoarfrost.geometry.rotations import mirror, random_rotations, rotation_vector_to_matrix
from hoarfrost.geometry.symmetry import point_group
from hoarfrost.io.mrc import write_stack
from hoarfrost.io.particles import read_particles, write_particles
from hoarfrost.io.star import number_tokens, read_star, write_star
from hoarfrost.types import HalfMaps, ImageArray, Optics, Particles, Poses, Volume
from phantoms import GaussianPhantom

PIXEL = 3.0
OFFSET = torch.tensor([5.0, -3.0, 8.0], dtype=torch.float64)


def stack(poses: Poses) -> Particles:
    count = len(poses)
    return Particles(ImageArray(torch.zeros(count, 8, 8)), Optics.uniform(count, pixel_size=PIXEL), poses)


def true_poses(count: int, generator: torch.Generator) -> Poses:
    shifts = 10 * torch.randn(count, 2, generator=generator, dtype=torch.float64)
    return Poses(random_rotations(count, generator), shifts)


def estimated_poses(truth: Poses, frame: Tensor, degrees: float, pixels: float, generator: torch.Generator) -> Poses:
    """Mirrored poses in another frame about another origin, each off by this angle and this far."""
    count = len(truth)
    axes = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator, dtype=torch.float64))
    directions = torch.nn.functional.normalize(torch.randn(count, 2, generator=generator, dtype=torch.float64))
    rotations = rotation_vector_to_matrix(axes * math.radians(degrees)) @ truth.rotations @ frame
    shifts = truth.shifts + (truth.rotations @ OFFSET)[:, :2] + directions * pixels * PIXEL
    return Poses(mirror(rotations), shifts)


def test_known_errors_come_out(generator: torch.Generator) -> None:
    truth, frame = true_poses(1000, generator), random_rotations(1, generator)[0]
    estimated = estimated_poses(truth, frame, 2.0, 0.3, generator)
    estimated.rotations[:50] = random_rotations(50, generator)
    scores = evaluate(stack(estimated), stack(truth))
    poses = scores.poses
    assert poses.hand == "mirrored"
    assert poses.particles == 1000
    assert poses.median == pytest.approx(2.0, abs=0.1)
    assert poses.frobenius_median == pytest.approx(2 * math.sqrt(2) * math.sin(math.radians(1.0)), rel=0.05)
    assert poses.below_10 == pytest.approx(0.95, abs=0.003)
    assert poses.partner_share == pytest.approx(0.05, abs=0.01)
    assert poses.mean == pytest.approx(0.95 * 2.0 + 0.05 * 126.5, abs=1.0)
    assert poses.shift_after_origin == pytest.approx(0.3, abs=0.02)
    assert poses.shift_mean > 1.5


def test_symmetric_copies_are_no_errors(generator: torch.Generator) -> None:
    truth = true_poses(300, generator)
    group = point_group("C3").double()
    copies = group[torch.randint(3, (300,), generator=generator)]
    estimated = Poses(truth.rotations @ copies, truth.shifts)
    with_symmetry = evaluate(stack(estimated), stack(truth), symmetry="C3").poses
    assert with_symmetry.median < 1e-3
    assert with_symmetry.shift_after_origin < 1e-6
    assert evaluate(stack(estimated), stack(truth)).poses.partner_share > 0.6


def test_map_and_half_maps_are_scored(generator: torch.Generator) -> None:
    box = 48
    phantom = GaussianPhantom.random(60, 36.0, generator, sigma=6.0)
    frame = random_rotations(1, generator)[0]
    centres = (phantom.centres - OFFSET) @ frame * torch.tensor([1.0, 1.0, -1.0])
    clean = GaussianPhantom(centres, phantom.sigmas, phantom.masses).volume(box, PIXEL)
    noise = [0.3 * clean.data.std() * torch.randn(clean.data.shape, generator=generator) for _ in range(2)]
    first, second = (Volume(clean.data + n, PIXEL) for n in noise)
    merged = Volume((first.data + second.data) / 2, PIXEL)
    truth = true_poses(200, generator)
    estimated = estimated_poses(truth, frame, 1.0, 0.1, generator)
    scores = evaluate(
        stack(estimated),
        stack(truth),
        map=merged,
        half_maps=HalfMaps(first, second),
        truth_map=phantom.volume(box, PIXEL),
    )
    assert scores.map_to_truth is not None
    assert scores.half_maps is not None
    assert scores.map_to_truth.alignment.mirrored
    assert torch.allclose(scores.map_to_truth.alignment.shift, OFFSET, atol=0.1 * PIXEL)
    unmasked, masked = (scores.map_to_truth.fsc.resolution(0.5, curve) for curve in ("unmasked", "corrected"))
    assert 2 * PIXEL < masked <= unmasked < 20.0
    # Half-maps cross 0.143 about where the full map crosses 0.5 with the truth.
    assert scores.half_maps.resolution(0.143) == pytest.approx(unmasked, rel=0.15)
    written = json.loads(scores.to_json())
    assert written["hand"] == written["map_hand"] == "mirrored"
    assert written["rotation_deg"].keys() == {"median", "mean", "below_10"}
    assert written["rotation_frobenius"].keys() == {"mean", "median"}
    assert written["shift_px"].keys() == {"mean", "after_origin"}
    assert written["fsc_0.5_angstrom"] == unmasked
    assert written["fsc_0.5_angstrom_masked"] == masked
    assert written["fsc_0.143_angstrom"] <= unmasked


def written_truth(folder: Path, count: int, generator: torch.Generator) -> Particles:
    """Particles of a stack on disk, with poses, read back from their table."""
    write_stack(folder / "stack.mrcs", [torch.zeros(count, 8, 8)], count=count, box=8, pixel_size=PIXEL)
    bare = read_particles(folder / "stack.mrcs")
    write_particles(bare.replace(poses=true_poses(count, generator)), folder / "truth.star")
    return read_particles(folder / "truth.star")


def test_particles_are_matched_by_their_image(tmp_path: Path, generator: torch.Generator) -> None:
    truth = written_truth(tmp_path, 100, generator)
    some = torch.randperm(100, generator=generator)[:40]
    rows, true_rows = match_particles(truth[some], truth)
    assert torch.equal(rows, torch.arange(40))
    assert torch.equal(true_rows, some)
    scores = evaluate(truth[some], truth).poses
    assert scores.particles == 40
    assert scores.median < 1e-3
    assert scores.shift_mean < 1e-4


def test_junk_does_not_count(tmp_path: Path, generator: torch.Generator) -> None:
    truth = written_truth(tmp_path, 60, generator)
    junk = np.arange(60) < 20
    optics, rows = read_star(tmp_path / "truth.star")
    column = {JUNK_COLUMN: number_tokens(junk.astype(np.int64))}
    write_star(tmp_path / "flagged.star", [optics, rows.with_columns(**column)])
    assert truth.poses is not None
    rotations = truth.poses.rotations.clone()
    rotations[:20] = random_rotations(20, generator)
    estimated = truth.replace(poses=truth.poses.replace(rotations=rotations))
    scores = evaluate(estimated, read_particles(tmp_path / "flagged.star"))
    assert scores.junk == 20
    assert scores.poses.particles == 40
    assert scores.poses.below_10 == 1.0
    in_memory = truth.replace(source=None, classes=torch.from_numpy(1 - junk.astype(np.int64)))
    assert evaluate(estimated, in_memory).junk == 20


def test_another_stack_is_refused(tmp_path: Path, generator: torch.Generator) -> None:
    truth = written_truth(tmp_path, 10, generator)
    (tmp_path / "other").mkdir()
    write_stack(tmp_path / "other" / "b.mrcs", [torch.zeros(4, 8, 8)], count=4, box=8, pixel_size=PIXEL)
    bare = read_particles(tmp_path / "other" / "b.mrcs").replace(poses=true_poses(4, generator))
    with pytest.raises(InputError, match=r"no image is found in .*truth.star .*1 of b.mrcs"):
        evaluate(bare, truth)
    with pytest.raises(InputError, match="3 particles and 10 true poses"):
        evaluate(stack(true_poses(3, generator)), truth)
    with pytest.raises(InputError, match="the result has no poses"):
        evaluate(truth.replace(poses=None), truth)
    with pytest.raises(InputError, match="an image is listed twice"):
        evaluate(truth, truth[torch.tensor([0, 1, 1])])
