"""``hoarfrost evaluate`` of a run with several classes: each map beside the truth that it is most like."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from hoarfrost.cli import main
from hoarfrost.data.simulate import Noise, simulate
from hoarfrost.io.mrc import write_map
from hoarfrost.types import Volume
from phantoms import GaussianPhantom

BOX, PIXEL = 24, 6.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two compositions with their truth, and a run whose classes are the other way round."""
    generator = torch.Generator().manual_seed(3)
    whole = GaussianPhantom.random(24, 42.0, generator, sigma=8.0)
    part = GaussianPhantom(whole.centres[:14], whole.sigmas[:14], whole.masses[:14])
    maps = [one.volume(BOX, PIXEL) for one in (whole, part)]
    folder = tmp_path_factory.mktemp("data")
    simulate(
        maps, count=40, box=BOX, pixel_size=PIXEL, noise=Noise(1.0), generator=generator
    ).write(folder)  # fmt: skip
    run = folder / "run"
    for number, one in enumerate(reversed(maps), 1):
        (run / f"class{number}").mkdir(parents=True)
        noise = 0.1 * one.data.std() * torch.randn(one.data.shape, generator=generator)
        write_map(run / f"class{number}" / "map.mrc", Volume(one.data + noise, PIXEL))
    shutil.copy(folder / "truth.star", run / "particles.star")
    return folder


def test_every_class_is_compared_with_the_truth_it_is_like(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["evaluate", str(data / "run"), "--truth", str(data)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"class 1 to truth 2, FSC 0\.5 +\d+\.\d+ Å", said)
    assert re.search(r"class 2 to truth 1, FSC 0\.5 +\d+\.\d+ Å", said)
    scores = json.loads((data / "run" / "scores.json").read_text())["class_maps"]
    assert {number: one["truth"] for number, one in scores.items()} == {"1": 2, "2": 1}
    for one in scores.values():
        assert one["map_correlation"] > 0.95
        assert one["fsc_0.5_angstrom"] < 16


def test_one_truth_for_several_classes_is_said(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    true_map = str(data / "truth_1.mrc")
    assert main.run(["evaluate", str(data / "run"), "--truth", str(data), "--truth-map", true_map]) == 0
    said = capsys.readouterr().out
    assert "2 classes, but there is one true map: every class is compared with it." in said
    scores = json.loads((data / "run" / "scores.json").read_text())["class_maps"]
    assert scores["2"]["map_correlation"] > scores["1"]["map_correlation"]
