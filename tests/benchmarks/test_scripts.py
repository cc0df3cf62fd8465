"""Every benchmark on a trivial size writes its table and its record; how runs are judged."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from benchmarks.__main__ import NAMES, purpose
from benchmarks.common import DATA_VARIABLE
from benchmarks.hard_cases import symmetric_complex
from benchmarks.relion_maps import relion_found

from benchmarks import (
    abinit_accuracy,
    abinit_speed,
    classes,
    confidence,
    estimators,
    hard_cases,
    homogeneous,
    homogeneous_noise,
    homogeneous_poses,
    homogeneous_snr,
    homogeneous_speed,
    homogeneous_training,
    kernels,
    orientation_limit,
    pose_limit,
    relion_agreement,
    simulate_speed,
)
from hoarfrost.geometry.symmetry import point_group
from hoarfrost.kernels.library import library

ROOT = Path(__file__).parents[2]


def smoke(benchmark, folder, capsys):
    """The record of a smoke run and what it printed."""
    assert benchmark.main(["--quick", "--threads", "1", "--results", str(folder)]) == 0
    text = (folder / f"{benchmark.NAME}.json").read_text()
    for path in (ROOT, Path.home(), Path(tempfile.gettempdir()), folder, Path(sys.prefix)):
        assert f"{path}/" not in text, "a record names no place on the machine"
    content = json.loads(text)
    assert content["benchmark"] == benchmark.NAME
    assert content["settings"]["quick"] is True
    assert content["rows"]
    return content, capsys.readouterr().out


@pytest.mark.slow
def test_abinit_accuracy(tmp_path, capsys):
    content, printed = smoke(abinit_accuracy, tmp_path, capsys)
    (row,) = content["rows"]
    assert "failed" not in row, row
    assert 0 < row["scores"]["rotation_deg"]["median"] < 180
    assert row["wall_s"] > 0
    assert row["peak_mb"] > 100
    assert row["stages"]
    assert content["figures"]["snr 1"]["right"] == row["right"]
    assert "median deg" in printed
    assert abinit_accuracy.main(["--quick", "--threads", "1", "--results", str(tmp_path)]) == 0
    assert "..." not in capsys.readouterr().out, "what is done is not done again"


@pytest.mark.skipif(library() is None, reason="the kernels were not compiled here")
def test_kernels(tmp_path, capsys):
    content, printed = smoke(kernels, tmp_path, capsys)
    assert [row["key"]["kernel"] for row in content["rows"]] == ["search", "gauss_newton", "insertion"]
    assert all(row["times_pytorch"] > 0 for row in content["rows"])
    assert content["rows"][0]["of_peak"] > 0
    assert "of peak" in printed
    assert library() is not None, "the kernels are there again"


@pytest.mark.slow
def test_abinit_speed(tmp_path, capsys):
    content, printed = smoke(abinit_speed, tmp_path, capsys)
    (row,) = content["rows"]
    assert row["wall_s"] > 0
    assert "share of the wall time" in printed


@pytest.mark.slow
def test_hard_cases(tmp_path, capsys):
    content, printed = smoke(hard_cases, tmp_path, capsys)
    (row,) = content["rows"]
    assert row["verdict"].startswith("warned"), "noise only must be warned of"
    assert "verdict" in printed


@pytest.mark.slow
def test_classes(tmp_path, capsys):
    content, printed = smoke(classes, tmp_path, capsys)
    (row,) = content["rows"]
    assert row["scores"]["classes"]["junk_found"] > 0.9
    assert "junk_recognised" in printed


@pytest.mark.slow
def test_confidence(tmp_path, capsys):
    content, printed = smoke(confidence, tmp_path, capsys)
    (row,) = content["rows"]
    assert "failed" not in row, row
    assert sum(row["range"]["count"]) == sum(row["rank"]["count"]) == row["key"]["particles"]
    assert sum(row["range"]["stated"]) == pytest.approx(row["mean_confidence"] * row["key"]["particles"], rel=1e-4)
    assert "tenths by rank" in printed


@pytest.mark.slow
def test_estimators(tmp_path, capsys):
    content, printed = smoke(estimators, tmp_path, capsys)
    by_name = {row["key"]["estimator"]: row for row in content["rows"]}
    assert set(by_name) == set(estimators.ESTIMATORS)
    assert by_name["hierarchical"]["median_deg"] < by_name["exhaustive, 15 deg"]["median_deg"]
    assert by_name["Gauss-Newton"]["median_deg"] < 2
    assert "GFLOP an image" in printed


def test_the_cost_of_the_hierarchical_search():
    """The published count of its scoring alone, 1.0 GFLOP, less the half that half-turns save."""
    assert 0.4 < estimators.hierarchical_gflop(128) < 1.0


@pytest.mark.slow
def test_simulate_speed(tmp_path, capsys):
    content, _ = smoke(simulate_speed, tmp_path, capsys)
    assert content["figures"]["correlation"] > 0.999
    assert [row["key"]["noise"] for row in content["rows"]] == ["white", "coloured"]


@pytest.mark.slow
def test_pose_limit(tmp_path, capsys):
    content, printed = smoke(pose_limit, tmp_path, capsys)
    (row,) = content["rows"]
    assert "failed" not in row, row
    assert 0 < row["limit_frobenius"] < 0.1
    assert row["times_the_limit"] > 0.9
    assert "times_the_limit" in printed


def test_orientation_limit(tmp_path, capsys):
    content, printed = smoke(orientation_limit, tmp_path, capsys)
    assert [row["key"]["condition"] for row in content["rows"]] == ["uniform", "coloured"]
    assert all(0 <= share < 0.5 for row in content["rows"] for share in row["elsewhere"])
    assert "of 2 stacks" in printed


@pytest.mark.slow
def test_homogeneous(tmp_path, capsys):
    content, printed = smoke(homogeneous, tmp_path, capsys)
    assert [row["key"]["method"] for row in content["rows"]] == homogeneous.SMOKE
    assert all(row["epochs"] == 1 for row in content["rows"])
    assert "gaussians over backprojection" in printed


@pytest.mark.slow
def test_homogeneous_noise(tmp_path, capsys):
    content, printed = smoke(homogeneous_noise, tmp_path, capsys)
    assert [row["key"]["mask"] for row in content["rows"]] == list(homogeneous_noise.MASKS)
    assert all(row["unmasked shell"] <= homogeneous_noise.LAST_SHELL for row in content["rows"])
    assert "corrected shell" in printed


@pytest.mark.slow
def test_homogeneous_poses(tmp_path, capsys):
    content, _ = smoke(homogeneous_poses, tmp_path, capsys)
    true, off, refined = content["rows"]
    assert true["median_deg"] < 1e-3
    assert off["median_deg"] == pytest.approx(4.5, rel=0.1)  # of the root mean square, three normal axes
    assert refined["median_deg"] < 0.8 * off["median_deg"]


@pytest.mark.slow
def test_homogeneous_snr(tmp_path, capsys):
    content, printed = smoke(homogeneous_snr, tmp_path, capsys)
    assert [len(row["curve_masked"]) for row in content["rows"]] == [17, 17]
    assert "at 0.5 Nyquist" in printed


@pytest.mark.slow
def test_homogeneous_speed(tmp_path, capsys):
    content, printed = smoke(homogeneous_speed, tmp_path, capsys)
    isotropic, anisotropic, *commands = content["rows"]
    assert 0 < isotropic["of_peak"] < 1
    assert anisotropic["images_s"] > 0
    assert len(commands) == 2
    assert "cryoDRGN's pace" in printed


@pytest.mark.slow
def test_homogeneous_training(tmp_path, capsys):
    content, printed = smoke(homogeneous_training, tmp_path, capsys)
    assert [row["epochs"] for row in content["rows"]] == [1, 1, 2]
    assert "times the resolution of" in printed


@pytest.mark.slow
@pytest.mark.relion
@pytest.mark.skipif(not relion_found(), reason="RELION is not installed")
def test_relion_agreement(tmp_path, capsys):
    content, _ = smoke(relion_agreement, tmp_path, capsys)
    assert [row["key"]["map"] for row in content["rows"]] == ["half 1", "half 2", "all"]
    assert all(row["least"] > 0.9 for row in content["rows"])


def test_a_benchmark_without_its_data_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "nowhere"))
    monkeypatch.setattr("benchmarks.common.ROOT", tmp_path)
    assert abinit_accuracy.main(["--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (
        "abinit_accuracy: skipped, it needs the shared test data: set HOARFROST_TEST_DATA to their folder\n"
    )


def test_the_list_of_benchmarks():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--list"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(NAMES)
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "def main" in path.read_text()}
    assert set(NAMES) == scripts - {"__main__"}
    assert all(len(purpose(name)) > 20 for name in NAMES)


def run_row(*, median=0.5, frobenius=0.02, shift=0.1, resolution=8.0, structure="1ffk", snr=0.1):
    return {
        "key": {"structure": structure, "snr": snr},
        "right": abinit_accuracy.is_right(
            {"rotation_deg": {"median": median}, "fsc_0.5_angstrom": resolution}, extent=320.0
        ),
        "scores": {
            "rotation_deg": {"median": median},
            "rotation_frobenius": {"mean": frobenius},
            "shift_px": {"after_origin": shift},
        },
    }


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "PASS"),
        ({"median": 0.8}, "short: median"),
        ({"frobenius": 0.04, "shift": 0.2}, "short: frobenius, shift"),
        ({"median": 40.0}, "WRONG MAP"),
        ({"resolution": 60.0}, "WRONG MAP"),
        ({"median": 3.0, "snr": 0.02}, "PASS"),
        ({"frobenius": 0.5, "structure": "1igt"}, "PASS"),
        ({"median": 40.0, "structure": "1igt"}, "WRONG MAP"),
        ({"shift": float("nan")}, "short: shift"),
    ],
)
def test_accuracy_is_held_against_its_bars(changes, verdict):
    assert abinit_accuracy.verdict(run_row(**changes)) == verdict


@pytest.mark.parametrize(
    ("median", "true", "warnings", "report", "verdict"),
    [
        (1.0, 10.0, [], "good", "correct"),
        (1.0, 10.0, ["careful"], "good", "correct, warned all the same"),
        (1.0, 20.0, [], "good", "CONFIDENT AND WRONG"),
        (1.0, 20.0, [], "caution", "warned in the report only"),
        (60.0, 10.0, [], "good", "CONFIDENT AND WRONG"),
        (60.0, 10.0, ["starts differ"], "bad", "warned"),
    ],
)
def test_a_wrong_map_must_be_warned_of(median, true, warnings, report, verdict):
    row = {
        "scores": {"rotation_deg": {"median": median}, "fsc_0.5_angstrom_masked": true},
        "resolution": 10.0,
        "warnings": warnings,
        "report": report,
    }
    assert hard_cases.verdict(row) == verdict


def test_nothing_in_the_images_is_never_right():
    row = {"resolution": 30.0, "warnings": [], "report": "good"}
    assert hard_cases.verdict(row) == hard_cases.WRONG


@pytest.mark.parametrize(("name", "order"), [("C3", 3), ("D7", 14)])
def test_symmetric_particles(name, order):
    """Copies about the axes of the group that touch but do not overlap."""
    atoms = symmetric_complex(name)
    copies = atoms.coordinates.unflatten(0, (order, -1))
    for operator in point_group(name):
        turned = copies[0] @ operator.T
        assert min(float((turned - copy).abs().max()) for copy in copies) < 1e-9
    nearest = min(float(torch.cdist(copies[0, ::10], other[::10]).min()) for other in copies[1:])
    assert 3.0 < nearest < 8.0
