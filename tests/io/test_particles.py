"""The door between files and particles: kinds of sources, where images are looked for, what may be written."""

import time
from pathlib import Path

import pytest
import torch

from hoarfrost.errors import InputError
from hoarfrost.io.mrc import write_stack
from hoarfrost.io.particles import read_particles, write_particles
from hoarfrost.types import ImageArray, Optics, Particles, Poses

_ROWS = "data_particles\nloop_\n_rlnImageName\n_rlnImagePixelSize\n"


def _stack(path: Path, count: int = 3, value: float = 0.0, pixel_size: float = 1.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = torch.full((count, 4, 4), value)
    write_stack(path, [images], count=count, box=4, pixel_size=pixel_size)


def test_a_bare_stack_has_no_ctf(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _stack(tmp_path / "s.mrcs")
    particles = read_particles(tmp_path / "s.mrcs")
    assert (len(particles), particles.box, particles.pixel_size) == (3, 4, 1.5)
    assert float(particles.optics.amplitude_contrast[0]) == 1.0
    assert float(particles.optics.spherical_aberration[0]) == 0.0
    assert "pixel size 1.5 Å is taken from the stack's header" in caplog.text


def test_a_bare_stack_gets_a_new_table(tmp_path: Path, generator: torch.Generator) -> None:
    _stack(tmp_path / "in/s.mrcs")
    particles = read_particles(tmp_path / "in/s.mrcs")
    poses = Poses(torch.eye(3).double().expand(3, 3, 3), torch.zeros(3, 2).double(), torch.ones(3).double())
    write_particles(particles.replace(poses=poses, half=torch.tensor([1, 2, 1])), tmp_path / "in/posed.star")
    assert "000001@s.mrcs" in (tmp_path / "in/posed.star").read_text()
    again = read_particles(tmp_path / "in/posed.star")
    assert again.half is not None
    assert again.half.tolist() == [1, 2, 1]
    assert again.pixel_size == 1.5
    (tmp_path / "out").mkdir()
    write_particles(particles[torch.tensor([2])], tmp_path / "out/one.star")
    assert f"000003@{tmp_path}/in/s.mrcs" in (tmp_path / "out/one.star").read_text()


def test_a_list_of_stacks(tmp_path: Path) -> None:
    _stack(tmp_path / "a.mrcs", 2, 1.0)
    _stack(tmp_path / "sub/b.mrcs", 3, 2.0)
    (tmp_path / "list.txt").write_text("# two stacks\na.mrcs\n\nsub/b.mrcs\n")
    particles = read_particles(tmp_path / "list.txt")
    assert particles.images.read(torch.arange(5))[:, 0, 0].tolist() == [1, 1, 2, 2, 2]
    write_particles(particles, tmp_path / "t.star")
    assert len(read_particles(tmp_path / "t.star")) == 5


@pytest.mark.parametrize(
    ("name", "stack", "root"),
    [
        ("s.mrcs", "project/job/s.mrcs", None),  # next to the table
        ("Extract/job1/s.mrcs", "project/Extract/job1/s.mrcs", None),  # the project folder above
        ("Extract/job1/s.mrcs", "elsewhere/Extract/job1/s.mrcs", "elsewhere"),  # --root
        ("Extract/job1/s.mrcs", "elsewhere/s.mrcs", "elsewhere"),  # bare name in --root
        ("/gone/s.mrcs", "project/job/s.mrcs", None),  # bare name next to the table
    ],
)
def test_images_are_looked_for(tmp_path: Path, name: str, stack: str, root: str | None) -> None:
    _stack(tmp_path / stack)
    (tmp_path / "project/job").mkdir(parents=True, exist_ok=True)
    table = tmp_path / "project/job/t.star"
    table.write_text(f"{_ROWS}1@{name} 2\n")
    assert len(read_particles(table, root=None if root is None else tmp_path / root)) == 1


def test_the_nearest_image_wins(tmp_path: Path) -> None:
    _stack(tmp_path / "s.mrcs", value=1.0)
    _stack(tmp_path / "job/s.mrcs", value=2.0)
    (tmp_path / "job/t.star").write_text(f"{_ROWS}1@s.mrcs 2\n")
    assert float(read_particles(tmp_path / "job/t.star").images.read(torch.tensor([0])).mean()) == 2.0


def test_a_missing_image_names_the_first_and_what_was_tried(tmp_path: Path) -> None:
    _stack(tmp_path / "s.mrcs")
    (tmp_path / "t.star").write_text(f"{_ROWS}1@s.mrcs 2\n1@x/u.mrcs 2\n1@v.mrcs 2\n")
    with pytest.raises(InputError) as caught:
        read_particles(tmp_path / "t.star", root=tmp_path / "r")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/t.star: row 2: image file x/u.mrcs not found (2 of 3 files are missing)")
    for place in (
        f"{tmp_path}/x/u.mrcs",
        f"{tmp_path.parent}/x/u.mrcs",
        f"{tmp_path}/r/x/u.mrcs",
        f"{tmp_path}/r/u.mrcs",
    ):
        assert place in message
    lazily = read_particles(tmp_path / "t.star", require_images=False)
    assert len(lazily) == 3
    with pytest.raises(InputError, match=r"row 2: image file x/u\.mrcs not found"):
        lazily.images.read(torch.tensor([0]))
    write_particles(lazily, tmp_path / "u.star")  # the old table needs no image
    with pytest.raises(InputError, match="has to state the size of the images"):
        write_particles(lazily, tmp_path / "u.cs")


def test_images_in_memory_cannot_be_named(tmp_path: Path) -> None:
    particles = Particles(ImageArray(torch.zeros(2, 4, 4)), Optics.uniform(2, pixel_size=1.0))
    with pytest.raises(InputError, match="the images are in no file; write them with write_stack"):
        write_particles(particles, tmp_path / "t.star")


def test_like_lends_its_columns(tmp_path: Path) -> None:
    _stack(tmp_path / "s.mrcs", 2)
    head = _ROWS.replace("_rlnImagePixelSize\n", "_rlnImagePixelSize\n_rlnMine\n")
    (tmp_path / "t.star").write_text(f"{head}1@s.mrcs 1.5 one\n2@s.mrcs 1.5 two\n")
    bare = read_particles(tmp_path / "s.mrcs").replace(half=torch.tensor([2, 1]))
    write_particles(bare, tmp_path / "u.star", like=tmp_path / "t.star")
    assert "1@s.mrcs 1.5 one 2" in (tmp_path / "u.star").read_text()
    with pytest.raises(InputError, match=r"t\.star: 2 rows, but 1 particles are to be written"):
        write_particles(bare[torch.tensor([0])], tmp_path / "v.star", like=tmp_path / "t.star")
    assert not (tmp_path / "v.star").exists()


def test_what_cannot_be_read_or_written_is_said(tmp_path: Path) -> None:
    _stack(tmp_path / "s.mrcs")
    particles = read_particles(tmp_path / "s.mrcs")
    with pytest.raises(InputError, match=r"written as \.star or \.cs"):
        write_particles(particles, tmp_path / "t.csv")
    with pytest.raises(InputError, match="cannot be written: No such file or directory"):
        write_particles(particles, tmp_path / "no/t.star")
    (tmp_path / "t.csv").write_text("a,b\n")
    with pytest.raises(InputError, match="unknown kind of particle file"):
        read_particles(tmp_path / "t.csv")
    (tmp_path / "t.txt").write_text("\n")
    with pytest.raises(InputError, match="lists no stacks"):
        read_particles(tmp_path / "t.txt")
    with pytest.raises(InputError, match="no such file"):
        read_particles(tmp_path / "none.star")
    _stack(tmp_path / "nosize.mrcs", pixel_size=0.0)
    with pytest.raises(InputError, match="no pixel size, neither in a table nor in the stack's header"):
        read_particles(tmp_path / "nosize.mrcs")


def test_reading_a_wide_table_takes_seconds(tmp_path: Path) -> None:
    row = " ".join(f"{0.123456 * i:.6f}" for i in range(1, 29))
    labels = "".join(f"_rlnColumn{i}\n" for i in range(28))
    count = 30_000
    body = "".join(f"{i % 500 + 1:06d}@Extract/job01/stack_{i // 500:05d}.mrcs 1.2 {row}\n" for i in range(count))
    (tmp_path / "t.star").write_text(_ROWS + labels + body)
    start = time.process_time()
    particles = read_particles(tmp_path / "t.star", require_images=False)
    assert len(particles) == count
    assert time.process_time() - start < 5  # 0.4 s on an idle core; ten times as many rows are a real table
