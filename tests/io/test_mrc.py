"""MRC files: every mode and byte order, axes, voxel sizes, truncation, streamed stacks."""

import logging
import os
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from hoarfrost.errors import InputError
from hoarfrost.io.mrc import holds_map, read_header, read_map, write_map, write_stack
from hoarfrost.types import Volume


def _ramp(*shape: int) -> torch.Tensor:
    return torch.arange(float(np.prod(shape))).reshape(shape)


@pytest.mark.parametrize("shape", [(4, 4, 4), (3, 4, 5)])
def test_a_map_survives_the_disk(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    write_map(tmp_path / "map.mrc", Volume(_ramp(*shape).sin(), 1.23))
    volume = read_map(tmp_path / "map.mrc")
    assert torch.equal(volume.data, _ramp(*shape).sin())
    assert volume.voxel_size == pytest.approx(1.23, rel=1e-6)
    assert mrcfile.validate(tmp_path / "map.mrc")
    with mrcfile.open(tmp_path / "map.mrc") as file:
        assert file.is_volume()
        assert float(file.header.rms) == pytest.approx(float(_ramp(*shape).sin().std(correction=0)), rel=1e-5)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.float32, np.uint16, np.float16])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_mode_and_byte_order_reads(tmp_path: Path, dtype: type, order: str) -> None:
    data = np.arange(24).reshape(2, 3, 4).astype(dtype)
    with mrcfile.new(tmp_path / "m.mrc", data) as file:
        file.voxel_size = 2.0
        if order == ">":
            file.header.machst = [0x11, 0x11, 0, 0]
    path = tmp_path / "m.mrc"
    if order == ">":
        raw = path.read_bytes()
        swapped = np.frombuffer(raw[:1024], mrcfile.dtypes.HEADER_DTYPE).byteswap().tobytes()
        path.write_bytes(swapped + data.astype(data.dtype.newbyteorder(">")).tobytes())
    volume = read_map(path)
    assert volume.voxel_size == 2.0
    assert torch.equal(volume.data, torch.arange(24.0).reshape(2, 3, 4))


def test_old_imod_bytes_are_unsigned(tmp_path: Path) -> None:
    path = tmp_path / "imod.mrc"
    with mrcfile.new(path, np.full((1, 2, 2), -1, np.int8)) as file:
        extra = bytearray(file.header.extra2.tobytes())
        extra[40:44] = (1146047817).to_bytes(4, "little")
        file.header.extra2 = bytes(extra)
    assert read_header(path).dtype == np.uint8
    assert float(read_map(path).data.max()) == 255


def test_axes_come_back_as_z_y_x(tmp_path: Path) -> None:
    data = _ramp(2, 3, 4)  # (z, y, x)
    stored = data.permute(2, 0, 1).contiguous()  # sections are x, rows z, columns y
    with mrcfile.new(tmp_path / "axes.mrc", stored.numpy()) as file:
        file.header.maps, file.header.mapr, file.header.mapc = 1, 3, 2
        file.header.mx, file.header.my, file.header.mz = 4, 3, 2
        file.header.cella = (4.0, 3.0, 2.0)
    volume = read_map(tmp_path / "axes.mrc")
    assert torch.equal(volume.data, data)
    assert volume.voxel_size == 1.0


def test_a_header_without_voxel_size_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with mrcfile.new(tmp_path / "m.mrc", np.zeros((2, 2, 2), np.float32)):
        pass
    with caplog.at_level(logging.WARNING, "hoarfrost"):
        assert read_map(tmp_path / "m.mrc").voxel_size == 1.0
    assert "no voxel size in the header" in caplog.text


def test_oblong_voxels_are_refused(tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "m.mrc", np.zeros((2, 2, 2), np.float32)) as file:
        file.voxel_size = (1.0, 1.0, 1.2)
    with pytest.raises(InputError, match=r"voxels of 1 x 1 x 1.2 Å"):
        read_map(tmp_path / "m.mrc")


def test_a_truncated_file_names_expected_and_actual_bytes(tmp_path: Path) -> None:
    path = tmp_path / "cut.mrcs"
    write_stack(path, [torch.zeros(5, 4, 4)], count=5, box=4, pixel_size=1.0)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=rf"{path}: truncated: 5 sections of 4 x 4 need 1344 bytes, the file has 1334"):
        read_header(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an MRC file: 0 bytes"),
        (b"x" * 5000, "not an MRC file, or truncated: its header announces"),
        (bytes(2048), "impossible size|not a readable"),
    ],
)
def test_rubbish_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.mrc"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_map(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_complex_transforms_are_refused(tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "c.mrc", np.zeros((2, 2, 2), np.complex64)):
        pass
    with pytest.raises(InputError, match="mode 4"):
        read_map(tmp_path / "c.mrc")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_map(tmp_path / "none.mrc")
    with pytest.raises(InputError, match="is a folder"):
        read_map(tmp_path)


def test_gzipped_maps_read(tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "m.map.gz", _ramp(3, 3, 3).numpy(), compression="gzip") as file:
        file.voxel_size = 1.5
    volume = read_map(tmp_path / "m.map.gz")
    assert torch.equal(volume.data, _ramp(3, 3, 3))
    assert volume.voxel_size == 1.5


def test_a_streamed_stack_is_a_valid_stack(tmp_path: Path, generator: torch.Generator) -> None:
    images = torch.randn(7, 6, 6, generator=generator) + 3
    write_stack(tmp_path / "s.mrcs", images.split(3), count=7, box=6, pixel_size=1.7)
    with mrcfile.open(tmp_path / "s.mrcs") as file:
        assert file.is_image_stack()
        assert np.array_equal(file.data, images.numpy())
        assert float(file.header.dmean) == pytest.approx(float(images.mean()), rel=1e-5)
        assert float(file.header.rms) == pytest.approx(float(images.std(correction=0)), rel=1e-4)
        assert file.voxel_size.x == pytest.approx(1.7, rel=1e-6)
        assert file.voxel_size.z == pytest.approx(1.7, rel=1e-6)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "s.mrcs"
    write_stack(path, [torch.ones(2, 4, 4)], count=2, box=4, pixel_size=1.0)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="1 images written where 2"):
        write_stack(path, [torch.zeros(1, 4, 4)], count=2, box=4, pixel_size=1.0)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["s.mrcs"]


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be written: No such file or directory"):
        write_map(tmp_path / "no" / "map.mrc", Volume(torch.zeros(2, 2, 2), 1.0))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    (tmp_path / f".s.mrcs.{os.getpid()}.part").symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"s\.mrcs: cannot be written: No space left on device"):
        write_stack(tmp_path / "s.mrcs", [torch.zeros(2, 4, 4)], count=2, box=4, pixel_size=1.0)


def test_names_and_shapes_tell_maps_from_stacks(tmp_path: Path) -> None:
    write_map(tmp_path / "a.mrc", Volume(torch.zeros(4, 4, 4), 1.0))
    write_stack(tmp_path / "b.mrcs", [torch.zeros(4, 4, 4)], count=4, box=4, pixel_size=1.0)
    assert holds_map(read_header(tmp_path / "a.mrc"))
    assert not holds_map(read_header(tmp_path / "b.mrcs"))


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "shape", "voxel_size"),
    [
        ("EMD-1155.ccp4", (281, 91, 141), 16.4),
        ("EMD-1832.map", (64, 64, 64), 5.7),
        ("EMD-3197.map", (20, 20, 20), 11.4),
        ("betaGal.mrc", (100, 100, 100), 3.54),
    ],
)
def test_real_maps(shared_data: Path, name: str, shape: tuple[int, int, int], voxel_size: float) -> None:
    volume = read_map(shared_data / "maps" / name)
    assert volume.data.shape == shape
    assert volume.voxel_size == pytest.approx(voxel_size, rel=1e-4)
    with mrcfile.open(shared_data / "maps" / name, permissive=True) as file:
        assert np.array_equal(volume.data.numpy(), file.data.astype(np.float32))


@pytest.mark.data
def test_a_crystal_map_with_oblong_voxels_is_refused(shared_data: Path) -> None:
    with pytest.raises(InputError, match=r"0\.4482 x 0\.3925 x 0\.4587|0\.4483 x 0\.3925 x 0\.4587"):
        read_map(shared_data / "maps" / "EMD-3001.map")
