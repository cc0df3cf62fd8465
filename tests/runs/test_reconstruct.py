"""``hoarfrost reconstruct`` on a small phantom, as a user runs it: what it leaves, and that it does nothing twice."""

import json

import pytest
import torch

from hoarfrost.analysis.fsc import HalfMapFSC, fourier_shell_correlation
from hoarfrost.cli import main
from hoarfrost.data.simulate import Noise, simulate
from hoarfrost.io.mrc import read_map
from hoarfrost.io.particles import read_particles
from phantoms import GaussianPhantom

BOX, PIXEL_SIZE, COUNT = 32, 6.0, 400


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """The folder of a simulated stack with its truth."""
    folder = tmp_path_factory.mktemp("stack")
    generator = torch.Generator().manual_seed(3)
    density = GaussianPhantom.random(16, 55.0, generator, sigma=9.0).volume(BOX, PIXEL_SIZE)
    made = simulate(
        density, count=COUNT, box=BOX, pixel_size=PIXEL_SIZE, noise=Noise(0.5), shift_px=2.0, generator=generator
    )
    made.write(folder)
    return folder


@pytest.mark.parametrize("method", ["backprojection", "gaussians", "neural"])
def test_a_run_leaves_its_maps_and_is_not_repeated(stack, tmp_path, capsys, method):
    run = tmp_path / "run"
    command = ["reconstruct", str(stack / "truth.star"), "-o", str(run), "--method", method, "--diameter", "150"]
    assert main.run(command) == 0
    names = "map.mrc half1.mrc half2.mrc mask.mrc particles.star fsc.csv report.html view.cxc figures/fsc.png"
    for name in names.split():
        assert (run / name).stat().st_size > 0
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["results"]["method"] == method
    assert record["results"]["resolution"] == HalfMapFSC.read_csv(run / "fsc.csv").resolution()
    truth = fourier_shell_correlation(read_map(run / "map.mrc"), read_map(stack / "truth.mrc"))
    assert truth[1:7].min() > 0.7
    given, found = (read_particles(table, root=stack) for table in (stack / "truth.star", run / "particles.star"))
    torch.testing.assert_close(found.poses.rotations, given.poses.rotations)
    assert set(found.half.tolist()) == {1, 2}
    printed = capsys.readouterr()
    assert "is finished" in printed.out
    assert "of memory" in printed.err
    assert "of disk" not in printed.err, "images are read once, and nothing is stored"
    changed = (run / "map.mrc").stat().st_mtime_ns
    assert main.run(command) == 0
    assert (run / "map.mrc").stat().st_mtime_ns == changed


def test_halves_of_the_table_are_kept_and_contrast_is_written(stack, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert main.run(["reconstruct", str(stack / "truth.star"), "-o", str(first), "--seed", "7"]) == 0
    again = ["reconstruct", str(first / "particles.star"), "-o", str(second), "--root", str(stack), "--contrast"]
    assert main.run(again) == 0
    before, after = (read_particles(run / "particles.star", root=stack) for run in (first, second))
    torch.testing.assert_close(after.half, before.half)
    record = json.loads((second / "run.json").read_text())
    assert record["results"]["epochs"] == 2
    assert record["results"]["contrast_spread"] == pytest.approx(float(after.optics.scale.std()), rel=1e-3, abs=1e-6)
