"""Lazy reading: order, many files, a bounded pool, and memory that does not grow."""

import os
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from hoarfrost.errors import InputError
from hoarfrost.io import images as module
from hoarfrost.io.images import MrcImages
from hoarfrost.io.mrc import write_stack
from hoarfrost.types import ImageSource


def _stacks(folder: Path, counts: list[int], box: int = 6) -> tuple[list[Path], torch.Tensor]:
    paths, everything = [], []
    for number, count in enumerate(counts):
        data = torch.randn(count, box, box, generator=torch.Generator().manual_seed(number))
        paths.append(folder / f"stack{number}.mrcs")
        write_stack(paths[-1], [data], count=count, box=box, pixel_size=1.0)
        everything.append(data)
    return paths, torch.cat(everything)


def _source(paths: list[Path], counts: list[int]) -> MrcImages:
    file = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return MrcImages(paths, file, torch.cat([torch.arange(c) for c in counts]))


def test_rows_come_in_the_order_asked_for(tmp_path: Path, generator: torch.Generator) -> None:
    counts = [5, 1, 9, 4]
    paths, everything = _stacks(tmp_path, counts)
    source = _source(paths, counts)
    assert isinstance(source, ImageSource)
    assert (len(source), source.box) == (19, 6)
    assert torch.equal(source.read(torch.arange(19)), everything)
    for _ in range(20):
        rows = torch.randint(19, (12,), generator=generator)  # with repeats
        assert torch.equal(source.read(rows), everything[rows])
    assert source.read(torch.arange(0)).shape == (0, 6, 6)


def test_a_table_may_mix_files_and_indices(tmp_path: Path) -> None:
    paths, everything = _stacks(tmp_path, [3, 3])
    source = MrcImages(paths, torch.tensor([1, 0, 1, 0]), torch.tensor([2, 0, 0, 2]))
    assert torch.equal(source.read(torch.arange(4)), everything[[5, 0, 3, 2]])


def test_other_dtypes_become_float32(tmp_path: Path) -> None:
    data = np.arange(32, dtype=np.int16).reshape(2, 4, 4)
    with mrcfile.new(tmp_path / "i.mrcs", data):
        pass
    images = MrcImages([tmp_path / "i.mrcs"], torch.zeros(2, dtype=torch.int64), torch.arange(2))
    read = images.read(torch.tensor([1, 0]))
    assert read.dtype == torch.float32
    assert torch.equal(read, torch.from_numpy(data[::-1].astype(np.float32)))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_the_pool_of_files_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OPEN_FILES", 4)
    counts = [2] * 12
    paths, everything = _stacks(tmp_path, counts)
    source = _source(paths, counts)
    assert torch.equal(source.read(torch.arange(24)), everything)
    links = [entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    opened = {os.readlink(link) for link in links if os.path.lexists(link)}
    assert 0 < sum(str(tmp_path) in path for path in opened) <= 4


def test_resident_memory_does_not_grow_with_the_stack(tmp_path: Path) -> None:
    count, box = 1500, 128  # 98 MB
    write_stack(tmp_path / "s.mrcs", torch.zeros(count, box, box).split(100), count=count, box=box, pixel_size=1.0)
    script = """
import sys, torch
from pathlib import Path
from hoarfrost.io.images import MrcImages
def resident():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1]) / 1024
n = 1500
source = MrcImages([Path(sys.argv[1])], torch.zeros(n, dtype=torch.int64), torch.arange(n))
source.read(torch.arange(50))
before = resident()
for rows in torch.arange(n).split(50):
    source.read(rows)
print(resident() - before)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "s.mrcs")], capture_output=True, text=True, check=True
    )
    assert float(result.stdout) < 40  # MB, of 98 MB read; libraries page in as well


def test_boxes_must_agree_and_be_square(tmp_path: Path) -> None:
    first, _ = _stacks(tmp_path, [2])
    write_stack(tmp_path / "other.mrcs", [torch.zeros(2, 8, 8)], count=2, box=8, pixel_size=1.0)
    rows = torch.tensor([0, 1])
    with pytest.raises(InputError, match=r"other\.mrcs: box 8, but .*stack0\.mrcs has box 6"):
        MrcImages([*first, tmp_path / "other.mrcs"], rows, rows)
    with mrcfile.new(tmp_path / "oblong.mrcs", np.zeros((2, 4, 6), np.float32)):
        pass
    with pytest.raises(InputError, match=r"oblong\.mrcs: images of 6 x 4 pixels; square"):
        MrcImages([tmp_path / "oblong.mrcs"], torch.zeros_like(rows), rows)


def test_an_index_beyond_the_stack_names_row_and_file(tmp_path: Path) -> None:
    paths, _ = _stacks(tmp_path, [3])
    with pytest.raises(InputError, match=r"table.star, row 2 asks for image 4 of .*stack0\.mrcs, which holds 3"):
        MrcImages(paths, torch.zeros(2, dtype=torch.int64), torch.tensor([0, 3]), tmp_path / "table.star")


def test_a_stack_that_vanishes_is_one_line(tmp_path: Path) -> None:
    paths, _ = _stacks(tmp_path, [3])
    source = _source(paths, [3])
    os.unlink(paths[0])
    with pytest.raises(InputError, match="cannot be read any more"):
        source.read(torch.arange(3))


def test_a_stack_that_is_cut_off_while_it_is_read_is_one_line(tmp_path: Path) -> None:
    paths, everything = _stacks(tmp_path, [3])
    source = _source(paths, [3])
    assert torch.equal(source.read(torch.tensor([1])), everything[1:2])
    os.truncate(paths[0], paths[0].stat().st_size - 1)
    with pytest.raises(InputError, match="become shorter"):
        source.read(torch.tensor([2]))


@pytest.mark.data
@pytest.mark.filterwarnings("ignore:(Map ID|Unrecognised machine)")
def test_real_stacks_read_like_mrcfile(shared_data: Path) -> None:
    for path in sorted((shared_data / "stacks").glob("*/*.mrcs")):
        with mrcfile.open(path, permissive=True) as file:
            data = file.data
            rows = torch.arange(len(data) - 1, -1, -3)
            source = MrcImages([path], torch.zeros(len(data), dtype=torch.int64), torch.arange(len(data)))
            assert np.array_equal(source.read(rows).numpy(), data[rows.numpy()])
