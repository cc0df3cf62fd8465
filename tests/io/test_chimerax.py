"""The ChimeraX script names the right files and levels."""

import shlex
from pathlib import Path

import pytest
import torch

from hoarfrost.errors import InputError
from hoarfrost.io.chimerax import contour_level, write_session_commands
from hoarfrost.types import Volume
from phantoms import GaussianPhantom


def commands(path: Path) -> list[list[str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [shlex.split(line, comments=False) for line in lines if not line.startswith("#")]


def test_maps_are_opened_by_relative_names_at_their_levels(tmp_path: Path) -> None:
    maps = [tmp_path / "map.mrc", tmp_path / "half maps" / "half1.mrc", tmp_path / "half maps" / "half2.mrc"]
    script = write_session_commands(tmp_path / "view.cxc", maps, level=0.0123, half_level=0.03, diameter=120.0)
    lines = commands(script)
    assert [line[1:] for line in lines if line[0] == "open"] == [
        ["map.mrc", "id", "1"],
        ["half maps/half1.mrc", "id", "2"],
        ["half maps/half2.mrc", "id", "3"],
    ]
    levels = {line[1]: float(line[line.index("level") + 1]) for line in lines if line[0] == "volume"}
    assert levels == {"#1": 0.0123, "#2": 0.03, "#3": 0.03}
    assert ["surface", "dust", "#1", "size", "12.0"] in lines
    assert [line[1] for line in lines if line[0] == "hide"] == ["#2", "#3"]
    assert str(tmp_path) not in script.read_text()


def test_names_with_quotes_stay_one_argument(tmp_path: Path) -> None:
    script = write_session_commands(tmp_path / "view.cxc", [tmp_path / 'my "best"; close.mrc'], level=1.0)
    assert """open 'my "best"; close.mrc' id 1""" in script.read_text().splitlines()


@pytest.mark.parametrize("name", ["both\"'.mrc", "line\nclose.mrc"])
def test_names_that_could_break_out_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="rename it"):
        write_session_commands(tmp_path / "view.cxc", [tmp_path / name], level=1.0)
    assert not (tmp_path / "view.cxc").exists()


def test_no_map_and_no_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no map"):
        write_session_commands(tmp_path / "view.cxc", [], level=1.0)
    with pytest.raises(InputError, match="cannot be written"):
        write_session_commands(tmp_path / "none" / "view.cxc", [tmp_path / "map.mrc"], level=1.0)


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05])
def test_level_encloses_the_particle_and_not_the_noise(generator: torch.Generator, noise: float) -> None:
    phantom = GaussianPhantom.random(300, 25.0, generator, sigma=4.0)
    clean = phantom.volume(64, 2.0)
    top = float(clean.data.max())
    noisy = Volume(clean.data + noise * top * torch.randn(64, 64, 64, generator=generator), 2.0)
    level = contour_level(noisy)
    axis = (torch.arange(64) - 32) * 2.0
    radius = (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis**2).sqrt()
    above = noisy.data > level
    particle = clean.data > 0.2 * top
    assert float(above[radius > 45].float().mean()) < 1e-3
    assert 0.6 < float(above.sum() / particle.sum()) < 1.5


def test_level_of_a_masked_map_does_not_vanish(generator: torch.Generator) -> None:
    volume = GaussianPhantom.random(100, 20.0, generator, sigma=4.0).volume(48, 2.0)
    axis = torch.arange(48) - 24
    mask = ((axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis**2) < 15**2).float()
    level = contour_level(Volume(volume.data * mask, 2.0), Volume(mask, 2.0))
    assert 0.1 < level / float(volume.data.max()) < 0.5
