"""The tutorial of the documentation runs as it stands, and ends as its page says."""

import runpy
import sys
from pathlib import Path

import pytest

import hoarfrost as hf

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.slow
def test_the_tutorial_finds_the_poses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tutorial.py", str(tmp_path)])
    names = runpy.run_path(str(DOCS / "tutorial.py"), run_name="__main__")
    assert names["scores"].poses.median < 2.0
    assert names["scores"].poses.below_10 > 0.98
    assert names["result"].fsc.resolution(0.143) < 8.0
    posed = hf.read_particles(tmp_path / "posed.star")
    assert posed.poses is not None
    assert hf.read_map(tmp_path / "map.mrc").voxel_size == pytest.approx(3.3)
    assert "chosen" in capsys.readouterr().out


def test_the_page_shows_every_part_of_the_program() -> None:
    program, page = (DOCS / "tutorial.py").read_text(), (DOCS / "tutorial.md").read_text()
    parts = [line.split("[start:")[1].rstrip("]") for line in program.splitlines() if "[start:" in line]
    included = [line for line in page.splitlines() if line.startswith('--8<-- "tutorial.py:')]
    shown = [line.rpartition(":")[2].rstrip('"') for line in included]
    assert shown == parts
