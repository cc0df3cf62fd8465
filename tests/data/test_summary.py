"""``info``: what files hold and what looks wrong with them."""

from pathlib import Path

import pytest
import torch

from hoarfrost.data.summary import summarise
from hoarfrost.io.mrc import write_map, write_stack
from hoarfrost.types import Volume

_HEAD = "data_\nloop_\n_rlnImageName\n_rlnImagePixelSize\n"


def _stack(path: Path, images: torch.Tensor, pixel_size: float = 1.5) -> None:
    write_stack(path, [images], count=len(images), box=images.shape[-1], pixel_size=pixel_size)


def test_a_sound_table(tmp_path: Path, generator: torch.Generator) -> None:
    _stack(tmp_path / "s.mrcs", torch.randn(4, 8, 8, generator=generator))
    (tmp_path / "t.star").write_text(_HEAD + "".join(f"{i}@s.mrcs 1.5\n" for i in range(1, 5)))
    summary = summarise(tmp_path / "t.star")
    assert summary.facts["particles"] == "4"
    assert summary.facts["box"] == "8 x 8"
    assert summary.facts["pixel size"] == "1.5 Å"
    assert summary.facts["defocus"] == "no CTF"
    assert summary.facts["poses"] == "none"
    assert summary.findings == ()


def test_what_looks_wrong_is_listed(tmp_path: Path) -> None:
    images = torch.zeros(3, 8, 8)
    images[0] = torch.eye(8)
    images[1, 0, 0] = torch.nan
    _stack(tmp_path / "s.mrcs", images)
    head = _HEAD + "_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n_rlnRandomSubset\n"
    rows = ["1@s.mrcs 1.5 0 0 0 1", "2@s.mrcs 1.5 0 0 0 1", "3@s.mrcs 1.6 0 0 0 1", "1@s.mrcs 1.5 0 0 0 2"]
    (tmp_path / "t.star").write_text(head + "\n".join(rows) + "\n")
    findings = " | ".join(summarise(tmp_path / "t.star").findings)
    assert "not finite" in findings
    assert "1 of 4 sampled images are constant" in findings
    assert "1 rows name an image that another row names as well" in findings
    assert "all poses are the same" in findings
    assert "pixel sizes differ by 7 %" in findings
    assert "the halves are of very different size" in findings


def test_missing_images_are_a_finding(tmp_path: Path) -> None:
    (tmp_path / "t.star").write_text(_HEAD + "1@gone.mrcs 1.5\n")
    (finding,) = summarise(tmp_path / "t.star").findings
    assert "row 1: image file gone.mrcs not found" in finding


def test_maps_and_stacks_without_a_size(tmp_path: Path) -> None:
    write_map(tmp_path / "m.mrc", Volume(torch.arange(60.0).reshape(3, 4, 5), 0.0))
    _stack(tmp_path / "s.mrcs", torch.zeros(3, 8, 8), pixel_size=0.0)
    assert summarise(tmp_path / "s.mrcs").findings == ("the header states no pixel size; a table with it is needed",)
    (tmp_path / "m.mrc").rename(tmp_path / "m.map")
    summary = summarise(tmp_path / "m.map")
    assert summary.title == "map"
    assert summary.facts["minimum and maximum"] == "0, 59"
    assert summary.findings == ("the header states no voxel size", "not a cube; most commands need one")


@pytest.mark.data
def test_real_files(shared_data: Path) -> None:
    six = summarise(shared_data / "metadata/cryodrgn/relion31.6opticsgroups.star")
    assert {group["pixel size (Å)"] for group in six.groups} == {"1.24", "1.25"}
    assert sum(int(group["particles"]) for group in six.groups) == 139
    assert "139 of 139 files are missing" in six.findings[0]
    oblong = summarise(shared_data / "maps/EMD-3001.map")
    assert oblong.findings == ("voxels are not cubes; resample it before use",)
    assert summarise(shared_data / "stacks/cryodrgn/relion31.star").facts["halves"] == "5 and 0"
