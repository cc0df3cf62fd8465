"""cryoSPARC tables: reference poses, passthrough files, exact writing, conversion to and from RELION."""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from hoarfrost.errors import InputError
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.io.mrc import write_stack
from hoarfrost.io.particles import read_particles, write_particles
from hoarfrost.types import Poses

_DTYPE = [
    ("uid", "<u8"), ("blob/path", "S20"), ("blob/idx", "<u4"), ("blob/shape", "<u4", (2,)), ("blob/psize_A", "<f4"),
    ("ctf/exp_group_id", "<u4"), ("ctf/accel_kv", "<f4"), ("ctf/cs_mm", "<f4"), ("ctf/amp_contrast", "<f4"),
    ("ctf/df1_A", "<f4"), ("ctf/df2_A", "<f4"), ("ctf/df_angle_rad", "<f4"), ("ctf/phase_shift_rad", "<f4"),
    ("location/center_x_frac", "<f4"),
]  # fmt: skip


def _records(count: int = 4, box: int = 6) -> np.ndarray:
    data = np.zeros(count, dtype=_DTYPE)
    data["uid"] = np.arange(count, dtype=np.uint64) + np.uint64(2**63)
    data["blob/path"] = b">J1/s.mrcs"
    data["blob/idx"] = np.arange(count)[::-1]
    data["blob/shape"] = box
    data["blob/psize_A"] = 2.95
    data["ctf/exp_group_id"] = [7, 3, 7, 3]
    data["ctf/accel_kv"], data["ctf/cs_mm"], data["ctf/amp_contrast"] = 300, 2.7, 0.07
    data["ctf/df1_A"], data["ctf/df2_A"] = 15000, 14000
    data["location/center_x_frac"] = np.linspace(0.1, 0.9, count)
    return data


def _aligned(data: np.ndarray, prefix: str = "alignments3D") -> np.ndarray:
    kinds = {"split": ("<u4",), "shift": ("<f4", (2,)), "pose": ("<f4", (3,)), "psize_A": ("<f4",)}
    extra = [(f"{prefix}/{name}", *kind) for name, kind in kinds.items()]
    grown = np.zeros(len(data), dtype=data.dtype.descr + extra)
    for name in data.dtype.names:
        grown[name] = data[name]
    grown[f"{prefix}/split"] = np.arange(len(data)) % 2
    grown[f"{prefix}/shift"] = np.arange(2 * len(data)).reshape(-1, 2)
    grown[f"{prefix}/pose"][:, 2] = 0.5
    grown[f"{prefix}/psize_A"] = 5.9
    return grown


def _project(folder: Path, data: np.ndarray, box: int = 6) -> Path:
    (folder / "J1").mkdir(exist_ok=True)
    count = len(data)
    images = torch.arange(float(count)).reshape(count, 1, 1).expand(count, box, box)
    write_stack(folder / "J1/s.mrcs", [images], count=count, box=box, pixel_size=1.0)
    (folder / "J2").mkdir(exist_ok=True)
    with (folder / "J2/particles.cs").open("wb") as stream:
        np.save(stream, data)
    return folder / "J2/particles.cs"


def _save(path: Path, data: np.ndarray) -> None:
    with path.open("wb") as stream:
        np.save(stream, data)


def test_paths_start_at_the_project_folder(tmp_path: Path) -> None:
    particles = read_particles(_project(tmp_path, _records()))
    assert particles.images.read(torch.arange(4))[:, 0, 0].tolist() == [3, 2, 1, 0]
    assert particles.pixel_size == 2.95
    assert particles.optics.group.tolist() == [1, 0, 1, 0]
    assert particles.optics.amplitude_contrast.tolist() == [0.07] * 4
    assert particles.poses is None


def test_shifts_are_in_pixels_of_the_alignment(tmp_path: Path) -> None:
    particles = read_particles(_project(tmp_path, _aligned(_records())))
    assert particles.poses is not None
    assert particles.poses.shifts[1].tolist() == pytest.approx([-2 * 5.9, -3 * 5.9])
    # Rodrigues of 0.5 about z, transposed: x -> cos, y -> +sin in the first row.
    c, s = math.cos(0.5), math.sin(0.5)
    assert torch.allclose(particles.poses.rotations[0, :2, :2], torch.tensor([[c, s], [-s, c]]).double())
    assert particles.half is not None
    assert particles.half.tolist() == [1, 2, 1, 2]


def test_a_single_split_means_no_halves(tmp_path: Path) -> None:
    data = _aligned(_records())
    data["alignments3D/split"] = 0
    assert read_particles(_project(tmp_path, data)).half is None


def test_passthrough_files_are_found_or_named(tmp_path: Path) -> None:
    data = _aligned(_records())
    path = _project(tmp_path, data)
    split = list(data.dtype.names).index("alignments3D/split")
    own = data[["uid", *data.dtype.names[split:]]].copy()
    rest = data[list(data.dtype.names[:split])][::-1].copy()  # another order: matched by uid
    _save(path, own)
    with pytest.raises(InputError, match="field blob/path is missing; name the passthrough file"):
        read_particles(path)
    _save(path.with_name("P1_J2_passthrough_particles.cs"), rest)
    found = read_particles(path)
    assert found.images.read(torch.arange(4))[:, 0, 0].tolist() == [3, 2, 1, 0]
    _save(path.with_name("P1_J2_passthrough_particles.cs"), rest[:2])
    with pytest.raises(InputError, match="blob/path is missing"):
        read_particles(path)
    _save(path.with_name("elsewhere.cs"), rest)
    named = read_particles(path, passthrough=[path.with_name("elsewhere.cs")])
    assert torch.equal(named.optics.defocus_u, found.optics.defocus_u)
    with pytest.raises(InputError, match=r"passthrough_particles\.cs: lacks some particles \(uid\)"):
        read_particles(path, passthrough=[path.with_name("P1_J2_passthrough_particles.cs")])


def test_unchanged_particles_are_written_bit_for_bit(tmp_path: Path) -> None:
    data = _aligned(_records())
    path = _project(tmp_path, data)
    write_particles(read_particles(path), path.with_name("same.cs"))
    assert np.array_equal(np.load(path.with_name("same.cs")), data)


def test_new_poses_go_into_a_table_without_alignments(tmp_path: Path, generator: torch.Generator) -> None:
    path = _project(tmp_path, _records())
    old = read_particles(path)
    poses = Poses(
        random_rotations(4, generator), torch.randn(4, 2, generator=generator).double(), torch.rand(4).double()
    )
    new = old.replace(poses=poses, half=torch.tensor([1, 2, 2, 1]), classes=torch.tensor([1, 1, 2, 2]))
    write_particles(new, path.with_name("posed.cs"))
    again = read_particles(path.with_name("posed.cs"))
    assert again.poses is not None
    assert again.poses.confidence is not None
    assert float((again.poses.rotations - poses.rotations).abs().max()) < 1e-6
    assert float((again.poses.shifts - poses.shifts).abs().max()) < 1e-5
    assert torch.allclose(again.poses.confidence, poses.confidence, atol=1e-7)
    assert torch.equal(again.half, new.half)
    assert torch.equal(again.classes, new.classes)
    written = np.load(path.with_name("posed.cs"))
    for name in _records().dtype.names:
        assert np.array_equal(written[name], _records()[name])


def test_ab_initio_jobs_give_the_likeliest_class(tmp_path: Path) -> None:
    data = _aligned(_aligned(_records(), "alignments_class_0"), "alignments_class_1")
    extra = [("alignments_class_0/class_posterior", "<f4"), ("alignments_class_1/class_posterior", "<f4")]
    grown = np.zeros(4, dtype=data.dtype.descr + extra)
    for name in data.dtype.names:
        grown[name] = data[name]
    grown["alignments_class_1/pose"][:, 2] = -0.5
    grown["alignments_class_0/class_posterior"] = [0.9, 0.1, 0.9, 0.1]
    grown["alignments_class_1/class_posterior"] = [0.1, 0.9, 0.1, 0.9]
    particles = read_particles(_project(tmp_path, grown))
    assert particles.classes is not None
    assert particles.classes.tolist() == [1, 2, 1, 2]
    assert particles.poses is not None
    sines = particles.poses.rotations[:, 0, 1].tolist()
    assert sines == pytest.approx([math.sin(0.5), -math.sin(0.5)] * 2)


def test_star_and_back(tmp_path: Path, generator: torch.Generator) -> None:
    path = _project(tmp_path, _records())
    poses = Poses(random_rotations(4, generator), 10 * torch.randn(4, 2, generator=generator).double())
    first = read_particles(path).replace(poses=poses, half=torch.tensor([1, 2, 2, 1]))
    write_particles(first, path.with_name("a.star"))
    star = read_particles(path.with_name("a.star"))
    write_particles(star, path.with_name("b.cs"))
    sparc = read_particles(path.with_name("b.cs"))
    write_particles(sparc, path.with_name("c.star"))
    last = read_particles(path.with_name("c.star"))
    for step in (star, sparc, last):
        assert step.poses is not None
        assert float((step.poses.rotations - poses.rotations).abs().max()) < 1e-6
        assert float((step.poses.shifts - poses.shifts).abs().max()) / step.pixel_size < 1e-4
        assert torch.equal(step.images.read(torch.arange(4)), first.images.read(torch.arange(4)))
        assert torch.equal(step.half, first.half)
        for field in ("pixel_size", "voltage", "defocus_u", "defocus_v", "amplitude_contrast", "group"):
            assert torch.equal(getattr(step.optics, field), getattr(first.optics, field)), field


def test_aberrations_that_cannot_be_applied_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = np.zeros(4, dtype=[*_DTYPE, ("ctf/tilt_A", "<f4", (2,)), ("ctf/anisomag", "<f4", (4,))])
    for name in _records().dtype.names:
        data[name] = _records()[name]
    data["ctf/tilt_A"] = 0.1
    read_particles(_project(tmp_path, data))
    assert "ctf/tilt_A are kept but not applied" in caplog.text
    assert "anisomag" not in caplog.text


def _changed(**values: object) -> np.ndarray:
    data = _aligned(_records())
    for name, value in values.items():
        data[name.replace("__", "/")][1] = value
    return data


def _lacking(name: str) -> np.ndarray:
    data = _records()
    return data[[n for n in data.dtype.names if n != name]].copy()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_lacking("ctf/accel_kv"), "field ctf/accel_kv is missing"),
        (_lacking("blob/idx"), "field blob/idx is missing"),
        (_changed(ctf__df1_A=np.nan), "row 2: field ctf/df1_A is not a finite number"),
        (_changed(alignments3D__pose=np.inf), "row 2: field alignments3D/pose is not a finite number"),
        (_changed(alignments3D__split=3), "row 2: alignments3D/split is 3"),
        (_changed(blob__shape=8), "images of 6 and 8 pixels"),
        (_changed(blob__idx=9), r"row 2 asks for image 10 of .*s\.mrcs, which holds 4"),
        (_changed(ctf__accel_kv=300000), "row 2: voltage 300000 is impossible"),
        (_changed(blob__path=b"gone.mrcs"), r"row 2: image file gone\.mrcs not found"),
        (_records()[:0], "holds no particles"),
        (np.zeros(3), "without named fields"),
    ],
)  # fmt: skip
def test_bad_tables_are_refused_in_one_line(tmp_path: Path, data: np.ndarray, message: str) -> None:
    path = _project(tmp_path, _records())
    _save(path, data)
    with pytest.raises(InputError, match=message) as caught:
        read_particles(path)
    assert "particles.cs" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = _project(tmp_path, _records())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="damaged or truncated"):
        read_particles(path)
    path.write_bytes(b"nothing of the sort")
    with pytest.raises(InputError, match=r"not a cryoSPARC \.cs file"):
        read_particles(path)


def test_no_file_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "evil.cs"
    with path.open("wb") as stream:
        np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="damaged or truncated"):
        read_particles(path)


def test_cryosparc_tools_reads_what_is_written_and_the_other_way_round(
    tmp_path: Path, generator: torch.Generator
) -> None:
    dataset = pytest.importorskip("cryosparc.dataset")
    path = _project(tmp_path, _records())
    poses = Poses(random_rotations(4, generator), torch.ones(4, 2).double())
    write_particles(read_particles(path).replace(poses=poses), path.with_name("out.cs"))
    loaded = dataset.Dataset.load(path.with_name("out.cs"))
    assert loaded["blob/path"].tolist() == [">J1/s.mrcs"] * 4
    assert loaded["uid"].tolist() == _records()["uid"].tolist()
    assert np.allclose(loaded["alignments3D/shift"], -1 / 2.95)
    loaded.save(path.with_name("plain.cs"), format=dataset.NUMPY_FORMAT)
    again = read_particles(path.with_name("plain.cs"))
    assert again.poses is not None
    assert float((again.poses.rotations - poses.rotations).abs().max()) < 1e-6
    loaded.save(path.with_name("packed.cs"), format=dataset.CSDAT_FORMAT)
    with pytest.raises(InputError, match=r"compressed layout; with cryosparc-tools rewrite it"):
        read_particles(path.with_name("packed.cs"))


@pytest.mark.data
def test_2019_poses_match_the_reference(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "metadata/cryodrgn"
    particles = read_particles(folder / "cryosparc_P12_J24_001_particles.cs", require_images=False)
    with (folder / "pose.cs.pkl").open("rb") as stream:
        rotations, fractions = pickle.load(stream)
    assert particles.poses is not None
    assert len(particles) == 2019
    assert float((particles.poses.rotations - torch.from_numpy(rotations)).abs().max()) < 2e-6
    shifts = -particles.poses.shifts / particles.optics.pixel_size[:, None] / particles.box
    assert float((shifts - torch.from_numpy(fractions)).abs().max()) < 1e-7
    for step in range(2):
        write_particles(particles, tmp_path / f"{step}.star")
        star = read_particles(tmp_path / f"{step}.star", require_images=False)
        write_particles(star, tmp_path / f"{step}.cs")
        particles = read_particles(tmp_path / f"{step}.cs", require_images=False)
    assert particles.poses is not None
    assert float((particles.poses.rotations - torch.from_numpy(rotations)).abs().max()) < 3e-6
    shifts = -particles.poses.shifts / particles.optics.pixel_size[:, None] / particles.box
    assert float((shifts - torch.from_numpy(fractions)).abs().max()) * 180 < 1e-4


@pytest.mark.data
def test_other_real_tables(shared_data: Path) -> None:
    with pytest.raises(InputError, match=r"empty_dataset\.cs: holds no particles \(0 rows\)"):
        read_particles(shared_data / "metadata/malformed/empty_dataset.cs")
    sparc = read_particles(shared_data / "stacks/cryodrgn/empiar_10076_7.cs")
    relion = read_particles(shared_data / "stacks/cryodrgn/empiar_10076_7.star")
    assert torch.equal(sparc.images.read(torch.arange(7)), relion.images.read(torch.arange(7)))
    assert torch.allclose(sparc.optics.defocus_u, relion.optics.defocus_u, atol=1e-2)
    assert torch.allclose(sparc.optics.defocus_angle, relion.optics.defocus_angle, atol=1e-6)
    assert sparc.pixel_size == pytest.approx(relion.pixel_size, rel=1e-6)
