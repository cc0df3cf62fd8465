"""RELION tables: what each flavour's columns mean, and poses going back without touching anything else."""

import math
import pickle
from pathlib import Path

import pytest
import torch

from hoarfrost.errors import InputError
from hoarfrost.geometry.rotations import euler_to_matrix, geodesic_distance, random_rotations
from hoarfrost.io.mrc import write_stack
from hoarfrost.io.particles import read_particles, write_particles
from hoarfrost.io.star import read_star
from hoarfrost.types import Particles, Poses

_OLD = """
data_

loop_
_rlnImageName #1
_rlnDefocusU #2
_rlnDefocusV #3
_rlnDefocusAngle #4
_rlnVoltage #5
_rlnSphericalAberration #6
_rlnAmplitudeContrast #7
_rlnMagnification #8
_rlnDetectorPixelSize #9
_rlnAngleRot #10
_rlnAngleTilt #11
_rlnAnglePsi #12
_rlnOriginX #13
_rlnOriginY #14
_rlnNote #15
2@s.mrcs 15000 14000 30 300 2.7 0.07 40000 5 10.0 20.0 30.0 1.50 -2.0 "a b"
1@s.mrcs 16000 15500 -5 300 2.7 0.07 40000 5 -40 100 170 0 0.250000 c
"""

_NEW = """
# version 30001

data_general

_rlnRemark kept

# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnImageSize #7
_rlnBeamTiltX #8
_rlnBeamTiltY #9
_rlnOddZernike #10
_rlnMagMat00 #11
_rlnMagMat01 #12
_rlnMagMat10 #13
_rlnMagMat11 #14
first 3 300 2.7 0.1 1.25 4 0.5 -0.25 [1,2,3] 1.01 0.02 0.03 0.99
second 1 200 2.0 0.08 1.24 4 0 0 [4] 1 0 0 1

# version 30001

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
_rlnPhaseShift #6
_rlnCtfBfactor #7
_rlnRandomSubset #8
_rlnClassNumber #9
_rlnMaxValueProbDistribution #10
_rlnAngleRot #11
_rlnAngleTilt #12
_rlnAnglePsi #13
_rlnOriginXAngst #14
_rlnOriginYAngst #15
000001@s.mrcs 1 15000.000000 14000 30 90 10 2 3 0.500 10 20 30 1.25 -2.5
000002@s.mrcs 3 15000.000000 14000 30 0 0 1 1 0.25 11 21 31 0 0
000003@s.mrcs 1 15000.000000 14000 30 0 0 2 1 1 12 22 32 0 0
"""


def _project(folder: Path, table: str, count: int = 3, box: int = 4) -> Path:
    write_stack(folder / "s.mrcs", [torch.arange(float(count * box**2)).reshape(count, box, box)],
                count=count, box=box, pixel_size=9.0)  # fmt: skip
    (folder / "t.star").write_text(table)
    return folder / "t.star"


def _column(path: Path, block: int, label: str) -> list[bytes]:
    return read_star(path)[block].columns[label].tolist()


def test_an_old_table(tmp_path: Path) -> None:
    particles = read_particles(_project(tmp_path, _OLD))
    assert particles.pixel_size == pytest.approx(1.25)  # 5 µm / 40000
    assert particles.optics.defocus_angle.tolist() == pytest.approx([math.radians(30), math.radians(-5)])
    assert particles.poses is not None
    expected = euler_to_matrix(torch.tensor([[10.0, 20, 30], [-40, 100, 170]], dtype=torch.float64).deg2rad())
    assert torch.equal(particles.poses.rotations, expected)
    assert torch.allclose(particles.poses.shifts, torch.tensor([[-1.875, 2.5], [0.0, -0.3125]]).double())
    assert torch.equal(particles.images.read(torch.arange(2))[:, 0, 0], torch.tensor([16.0, 0.0]))
    assert particles.half is None
    assert particles.classes is None


def test_a_table_with_optics_groups(tmp_path: Path) -> None:
    particles = read_particles(_project(tmp_path, _NEW))
    optics = particles.optics
    assert optics.pixel_size.tolist() == [1.24, 1.25, 1.24]
    assert optics.voltage.tolist() == [200.0, 300.0, 200.0]
    assert optics.group.tolist() == [1, 0, 1]
    assert optics.beam_tilt.tolist() == [[0, 0], [0.5, -0.25], [0, 0]]
    assert optics.odd_zernike.tolist() == [[4, 0, 0], [1, 2, 3], [4, 0, 0]]
    assert optics.magnification[1].tolist() == [[1.01, 0.02], [0.03, 0.99]]
    assert optics.phase_shift.tolist() == pytest.approx([math.pi / 2, 0, 0])
    assert optics.b_factor.tolist() == [10, 0, 0]
    assert optics.scale.tolist() == [1, 1, 1]
    assert particles.half is not None
    assert particles.half.tolist() == [2, 1, 2]
    assert particles.classes is not None
    assert particles.classes.tolist() == [3, 1, 1]
    assert particles.poses is not None
    assert particles.poses.confidence is not None
    assert particles.poses.confidence.tolist() == [0.5, 0.25, 1.0]
    assert particles.poses.shifts.tolist() == [[-1.25, 2.5], [0, 0], [0, 0]]


@pytest.mark.parametrize("table", [_OLD, _NEW])
def test_unchanged_particles_are_written_token_for_token(tmp_path: Path, table: str) -> None:
    path = _project(tmp_path, table)
    write_particles(read_particles(path), tmp_path / "u.star")
    written = [line.split() for line in (tmp_path / "u.star").read_text().splitlines() if line.strip()]
    original = [line.split() for line in path.read_text().splitlines() if line.strip()]
    assert written == original


@pytest.mark.parametrize("table", [_OLD, _NEW])
def test_new_poses_go_back_and_nothing_else_changes(tmp_path: Path, table: str, generator: torch.Generator) -> None:
    path = _project(tmp_path, table)
    old = read_particles(path)
    n = len(old)
    poses = Poses(
        random_rotations(n, generator),
        torch.randn(n, 2, generator=generator, dtype=torch.float64),
        torch.rand(n).double(),
    )
    half = torch.arange(n) % 2 + 1
    new = old.replace(poses=poses, half=half, classes=torch.full((n,), 2))
    write_particles(new, tmp_path / "u.star")
    again = read_particles(tmp_path / "u.star")
    assert again.poses is not None
    assert float(geodesic_distance(again.poses.rotations, poses.rotations).max()) < 1e-12
    assert torch.allclose(again.poses.shifts, poses.shifts, rtol=0, atol=1e-12)
    assert again.poses.confidence is not None
    assert torch.equal(again.poses.confidence, poses.confidence)
    assert torch.equal(again.half, half)
    block = 2 if table is _NEW else 0
    for label in ("rlnImageName", "rlnDefocusU", "rlnNote" if table is _OLD else "rlnCtfBfactor"):
        assert _column(tmp_path / "u.star", block, label) == _column(path, block, label)
    if table is _NEW:
        assert _column(tmp_path / "u.star", 0, "rlnRemark") == [b"kept"]
        assert _column(tmp_path / "u.star", 1, "rlnOddZernike") == [b"[1,2,3]", b"[4]"]


def test_one_changed_pose_leaves_the_other_rows_alone(tmp_path: Path) -> None:
    path = _project(tmp_path, _NEW)
    old = read_particles(path)
    assert old.poses is not None
    shifts = old.poses.shifts.clone()
    shifts[2] = torch.tensor([3.0, -1.0])
    write_particles(old.replace(poses=old.poses.replace(shifts=shifts)), tmp_path / "u.star")
    assert _column(tmp_path / "u.star", 2, "rlnOriginXAngst") == [b"1.25", b"0", b"-3.0"]
    assert _column(tmp_path / "u.star", 2, "rlnAngleRot") == [b"10", b"11", b"12"]


def test_a_subset_in_its_own_order(tmp_path: Path) -> None:
    path = _project(tmp_path, _NEW)
    rows = torch.tensor([2, 0])
    subset = read_particles(path)[rows]
    write_particles(subset, tmp_path / "u.star")
    again = read_particles(tmp_path / "u.star")
    assert _column(tmp_path / "u.star", 2, "rlnImageName") == [b"000003@s.mrcs", b"000001@s.mrcs"]
    assert torch.equal(again.images.read(torch.arange(2)), subset.images.read(torch.arange(2)))
    assert torch.equal(again.optics.pixel_size, subset.optics.pixel_size)


def test_particles_without_poses_have_no_pose_columns(tmp_path: Path) -> None:
    path = _project(tmp_path, _NEW)
    write_particles(read_particles(path).replace(poses=None, half=None), tmp_path / "u.star")
    again = read_particles(tmp_path / "u.star")
    assert again.poses is None
    assert again.half is None
    assert again.classes is not None
    assert "rlnOriginXAngst" not in (tmp_path / "u.star").read_text()


def test_refined_defoci_are_written(tmp_path: Path) -> None:
    path = _project(tmp_path, _NEW)
    old = read_particles(path)
    defocus = old.optics.defocus_u.clone()
    defocus[1] = 15123.25
    write_particles(old.replace(optics=old.optics.replace(defocus_u=defocus)), tmp_path / "u.star")
    assert _column(tmp_path / "u.star", 2, "rlnDefocusU") == [b"15000.000000", b"15123.25", b"15000.000000"]


def _without_column(table: str, label: str) -> str:
    """The old table without one column."""
    head, rows = table.strip().rsplit("#15\n", 1)
    labels = [line for line in (head + "#15").splitlines() if line.startswith("_")]
    place = next(i for i, line in enumerate(labels) if line.startswith(f"_{label} "))
    kept = [line for i, line in enumerate(labels) if i != place]
    fields = [row.replace('"a b"', "ab").split() for row in rows.strip().splitlines()]
    body = [" ".join(f for i, f in enumerate(row) if i != place) for row in fields]
    return "data_\nloop_\n" + "\n".join([*kept, *body]) + "\n"


@pytest.mark.parametrize("label", ["rlnVoltage", "rlnSphericalAberration", "rlnDefocusU", "rlnDefocusAngle"])
def test_a_missing_ctf_column_is_named(tmp_path: Path, label: str) -> None:
    path = _project(tmp_path, _without_column(_OLD, label))
    with pytest.raises(InputError, match=rf"t\.star: column {label} is missing"):
        read_particles(path)


def test_without_any_ctf_column_the_transfer_function_is_one(tmp_path: Path) -> None:
    path = _project(tmp_path, "data_\nloop_\n_rlnImageName\n_rlnImagePixelSize\n1@s.mrcs 2\n")
    optics = read_particles(path).optics
    assert (float(optics.spherical_aberration), float(optics.amplitude_contrast)) == (0.0, 1.0)
    assert float(optics.defocus_u) == 0.0


_BAD = [
    (
        _NEW.replace("000002@s.mrcs 3", "000002@s.mrcs 7"),
        r"row 2: optics group 7 is not in data_optics, which has 3, 1",
    ),
    (_NEW.replace("second 1 200", "second 1 200000"), r"row 1: voltage 200000 is impossible; expected kV"),
    (_NEW.replace("0.08 1.24", "0.08 0"), r"row 1: pixel size 0 is impossible"),
    (_NEW.replace("0.08 1.24", "1.8 1.24"), r"row 1: amplitude contrast 1.8 is impossible"),
    (_NEW.replace("15000.000000 14000", "1.5 1.4"), r"looks like µm"),
    (_NEW.replace("000003@", "000004@"), r"row 3 asks for image 4 of .*s\.mrcs, which holds 3"),
    (_NEW.replace("000003@", "000000@"), r"row 3: image 000000 of s\.mrcs: images count from 1"),
    (_NEW.replace("000003@", "x@"), r"row 3, column rlnImageName: 'x@s\.mrcs' is not 'number@stack'"),
    (_NEW.replace("000003@s.mrcs", "s.mrcs"), r"row 3: s\.mrcs holds 3 sections and the table does not say which"),
    (_NEW.replace("000003@s.mrcs", "000003@gone/u.mrcs"), r"row 3: image file gone/u\.mrcs not found .*--root"),
    (_NEW.replace(" 4 0.5", " 6 0.5"), r"images of 4 and 6 pixels"),
    (_NEW.replace(" 4 0", " 6 0"), r"states images of 6 pixels, but .*s\.mrcs has 4"),
    (_NEW.replace("[4]", "[4,x]"), r"column rlnOddZernike: '\[4,x\]' is not a list of numbers"),
    (_NEW.replace(" 1 2 3 0.500", " 1 9 3 0.500").replace(" 2 3 0.500", " 5 3 0.500"), r"row 1: rlnRandomSubset is 5"),
    (_NEW.replace("0.25 11", "0.25 inf"), r"row 2, column rlnAngleRot: inf is not a finite number"),
    (_NEW.replace("0.25 11", "0.25 <NA>"), r"row 2, column rlnAngleRot: '<NA>' is not a number"),
    (
        _NEW.replace("_rlnOpticsGroup #2\n_rlnDefocusU", "_rlnOther #2\n_rlnDefocusU"),
        r"rlnOpticsGroup is missing, with 2",
    ),
    (_NEW.replace("second 1 200", "second 3 200"), r"an rlnOpticsGroup number occurs twice"),
    (_NEW.replace("_rlnImageName", "_rlnMicrographName"), r"no particle table \(a loop_ with column rlnImageName\)"),
    (_NEW.split("000001@s")[0], r"holds no particles"),
    (_OLD.replace("40000", "0"), r"row 1: rlnMagnification 0 must be positive"),
    (_NEW.replace("_rlnBeamTiltX", "_rlnCtfDataArePhaseFlipped"), r"phase-flipped"),
    (_NEW.replace("_rlnBeamTiltX", "_rlnImageDimensionality"), r"holds subtomograms or tilt-series particles"),
]


@pytest.mark.parametrize(("table", "message"), _BAD)
def test_bad_tables_are_refused_in_one_line(tmp_path: Path, table: str, message: str) -> None:
    path = _project(tmp_path, table)
    with pytest.raises(InputError, match=message) as caught:
        read_particles(path)
    assert "t.star" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.data
def test_six_optics_groups(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "metadata/cryodrgn/relion31.6opticsgroups.star"
    particles = read_particles(path, require_images=False)
    optics = particles.optics
    assert len(particles) == 139
    assert set(optics.pixel_size.tolist()) == {1.24, 1.25}
    assert set(optics.group.tolist()) <= set(range(6))
    assert optics.odd_zernike.shape == (139, 6)
    assert optics.even_zernike.shape == (139, 9)
    first = optics[torch.nonzero(optics.group == 0)[:, 0]]
    assert first.beam_tilt[0].tolist() == [0.657334, 0.884982]
    assert first.magnification[0].tolist() == [[1.011472, 0.004231], [0.004560, 1.008858]]
    _same_after_rewriting(particles, path, tmp_path)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "count", "pixel_size", "cs"),
    [
        ("cryodrgn/relion5.star", 17, 0.89, 1.6),
        ("empiar10025_t20s_particles.star", 1500, 0.98186, 2.7),
        ("cryodrgn/FinalRefinement-OriginalParticles-PfCRT.star", 5, 1.035, 0.001),
        ("cryodrgn/sta_testing.star", 219, 1.96, 2.7),
    ],
)
def test_real_tables(shared_data: Path, tmp_path: Path, name: str, count: int, pixel_size: float, cs: float) -> None:
    path = shared_data / "metadata" / name
    particles = read_particles(path, require_images=False)
    assert len(particles) == count
    assert particles.pixel_size == pytest.approx(pixel_size, rel=1e-4)
    assert float(particles.optics.spherical_aberration[0]) == cs
    assert particles.poses is not None
    eye = particles.poses.rotations @ particles.poses.rotations.mT
    assert torch.allclose(eye, torch.eye(3, dtype=torch.float64).expand_as(eye), atol=1e-12)
    _same_after_rewriting(particles, path, tmp_path)


def _same_after_rewriting(particles: Particles, path: Path, tmp_path: Path) -> None:
    """Unchanged: token for token. With foreign poses and back: to rounding."""
    write_particles(particles, tmp_path / "same.star")
    fields = [line.split() for line in path.read_text().splitlines() if "@" in line]
    again = [line.split() for line in (tmp_path / "same.star").read_text().splitlines() if "@" in line]
    assert fields == again
    assert particles.poses is not None
    single = particles.poses.replace(rotations=particles.poses.rotations + 1e-14)
    write_particles(particles.replace(poses=single), tmp_path / "near.star")
    near = read_particles(tmp_path / "near.star", require_images=False)
    assert near.poses is not None
    assert float((near.poses.rotations - particles.poses.rotations).abs().max()) < 1e-12


@pytest.mark.data
def test_poses_of_a_tilt_series_table_match_the_reference(shared_data: Path) -> None:
    folder = shared_data / "stacks/cryodrgn"
    particles = read_particles(folder / "sta_testing_bin8.star")
    with (folder / "sta_pose.pkl").open("rb") as stream:
        rotations = pickle.load(stream)[0]
    with (folder / "sta_ctf.pkl").open("rb") as stream:
        ctf = torch.from_numpy(pickle.load(stream)).double()
    assert particles.poses is not None
    assert torch.allclose(particles.poses.rotations, torch.from_numpy(rotations).double(), atol=1e-6)
    # The table has no origins; the reference's shifts are memory that was never written.
    assert not particles.poses.shifts.any()
    assert torch.allclose(particles.optics.defocus_u, ctf[:, 2], atol=1e-2)
    assert torch.allclose(particles.optics.defocus_v, ctf[:, 3], atol=1e-2)
    assert torch.allclose(particles.optics.defocus_angle.rad2deg(), ctf[:, 4], atol=1e-4)


@pytest.mark.data
def test_every_other_star_parses_or_says_why(shared_data: Path) -> None:
    paths = [*(shared_data / "metadata/cryocat").glob("*.star"), *(shared_data / "metadata").glob("*/*.star")]
    for path in paths:
        problem = ""
        try:
            particles = read_particles(path, require_images=False)
        except InputError as error:
            problem = str(error)
        assert problem.startswith(str(path)) or len(particles) > 0
        assert "\n" not in problem
    with pytest.raises(InputError, match="column rlnVoltage is missing"):
        read_particles(shared_data / "metadata/malformed/sample_incomplete_ctf_params.star", require_images=False)
