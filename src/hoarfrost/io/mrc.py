"""Maps and image stacks in MRC files: headers, whole maps, streamed stacks."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import torch
from jaxtyping import Float
from mrcfile import utils as mrc_utils
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.mrcobject import MrcObject
from torch import Tensor

from hoarfrost.errors import InputError
from hoarfrost.io.files import existing_file, replacing
from hoarfrost.types import Volume

logger = logging.getLogger("hoarfrost")

_HEADER_BYTES = 1024
_IMOD_STAMP = 1146047817
COMPRESSED = (".gz", ".bz2")


@dataclass(frozen=True)
class MrcHeader:
    """Where the numbers of an MRC file lie and what they are.

    ``shape`` is (sections, rows, columns); ``voxel_size`` is (x, y, z) in Å and 0 where the header leaves it open;
    ``axes`` are the axes of sections, rows and columns (1 is x, 2 is y, 3 is z).
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype
    offset: int
    voxel_size: tuple[float, float, float]
    axes: tuple[int, int, int]

    @property
    def data_bytes(self) -> int:
        """Bytes that the images or the map take."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(path: Path) -> MrcHeader:
    """Read the header of an MRC file (modes 0, 1, 2, 6 and 12, either byte order) and check the file's length.

    Raises
    ------
    InputError
        No such file, not an MRC file, a mode without real numbers, or fewer bytes than the header promises.
    """
    path = existing_file(path)
    compressed = path.suffix in COMPRESSED
    actual = path.stat().st_size
    if actual < _HEADER_BYTES and not compressed:
        raise InputError(f"{path}: not an MRC file: {actual} bytes, a header alone has {_HEADER_BYTES}")
    if not compressed:
        _refuse_impossible_extension(path, actual)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        try:
            with mrcfile.open(path, permissive=True, header_only=True) as file:
                header = file.header
                dtype = mrc_utils.data_dtype_from_header(header)
        except (ValueError, OSError) as error:
            raise InputError(f"{path}: not a readable MRC file: {error}") from error
    if header is None:
        raise InputError(f"{path}: not an MRC file: its header cannot be read")
    if notes:
        # Old programs leave such fields empty; the numbers are read all the same.
        logger.info("%s: %s", path, "; ".join(str(note.message) for note in notes))
    result = _parsed(path, header, dtype)
    expected = result.offset + result.data_bytes
    if actual < expected and not compressed:
        raise InputError(
            f"{path}: truncated: {_describe(result.shape)} need {expected} bytes, the file has {actual}; copy it again"
        )
    return result


def holds_map(header: MrcHeader) -> bool:
    """Whether a file is a map rather than a stack, by its name and shape: headers of stacks often claim to be maps."""
    suffix = Path(header.path.stem).suffix if header.path.suffix in COMPRESSED else header.path.suffix
    return suffix in (".map", ".ccp4") or (suffix not in (".mrcs", ".st") and len(set(header.shape)) == 1)


def read_map(path: Path | str, *, finite: bool = True) -> Volume:
    """Read a map: float32 with axes (z, y, x), whatever their order in the file, and its voxel size in Å.

    The box need not be a cube. A header without a voxel size gives 1 Å and a warning in the log.

    Parameters
    ----------
    path : the file.
    finite : refuse a map with values that are not numbers.

    Raises
    ------
    InputError
        As :func:`read_header`, voxels whose sides differ by more than one per cent, or NaN or infinity in the map.
    """
    header = read_header(Path(path))
    if header.path.suffix in COMPRESSED:
        with mrcfile.open(header.path, permissive=True) as file:
            data = np.array(file.data).reshape(header.shape)
    else:
        data = np.fromfile(header.path, header.dtype, math.prod(header.shape), offset=header.offset)
        data = data.reshape(header.shape)
    order = [header.axes.index(axis) for axis in (3, 2, 1)]
    values = torch.from_numpy(np.ascontiguousarray(data.transpose(order), dtype=np.float32))
    if finite and not bool(values.isfinite().all()):
        bad = int((~values.isfinite()).sum())
        raise InputError(
            f"{header.path}: {bad} of {values.numel()} voxels are not numbers (NaN or infinity); write the map again"
        )
    return Volume(values, _cubic_voxel(header))


def write_map(path: Path | str, volume: Volume) -> None:
    """Write a map as float32 with its voxel size; the file appears whole or not at all."""
    data = volume.data.detach().cpu().to(torch.float32).contiguous().numpy()
    file = _NewFile(data, volume.voxel_size)
    file.set_volume()
    with replacing(Path(path)) as temporary, temporary.open("wb") as stream:
        stream.write(file.header.tobytes())
        stream.write(data.data)


def write_stack(
    path: Path | str, chunks: Iterable[Float[Tensor, "_ y x"]], *, count: int, box: int, pixel_size: float
) -> None:
    """Write an image stack a few images at a time, as float32; memory does not grow with ``count``.

    Raises
    ------
    InputError
        A file that cannot be written.
    ValueError
        Chunks that do not add up to ``count`` images of side ``box``.
    """
    file = _NewFile(np.zeros((1, box, box), np.float32), pixel_size)
    file.set_image_stack()
    header = file.header
    total, total_squares, low, high, written = 0.0, 0.0, math.inf, -math.inf, 0
    # Plain writes: through a memory map a full disk would kill the process instead of raising an error.
    with replacing(Path(path)) as temporary, temporary.open("wb") as stream:
        stream.write(header.tobytes())
        for chunk in chunks:
            images = chunk.detach().cpu().to(torch.float32).contiguous().numpy()
            if images.shape[1:] != (box, box):
                raise ValueError(f"images of {images.shape[1:]} in a stack of box {box}")
            stream.write(images.data)
            written += len(images)
            total += float(images.sum(dtype=np.float64))
            total_squares += float(np.einsum("byx,byx->b", images, images).sum(dtype=np.float64))
            low, high = min(low, float(images.min())), max(high, float(images.max()))
        if written != count:
            raise ValueError(f"{written} images written where {count} were announced")
        pixels = count * box * box
        header.nz, header.dmin, header.dmax, header.dmean = count, low, high, total / pixels
        header.rms = math.sqrt(max(total_squares / pixels - (total / pixels) ** 2, 0.0))
        stream.seek(0)
        stream.write(header.tobytes())


class _NewFile(MrcObject):
    """The header that mrcfile gives to new data, without mrcfile's way to the disk (noisy when that is full)."""

    def __init__(self, data: np.ndarray, voxel_size: float) -> None:
        super().__init__()
        self._create_default_attributes()
        self.set_data(data)
        self.voxel_size = voxel_size


def _refuse_impossible_extension(path: Path, actual: int) -> None:
    """Refuse a header whose extension would be longer than the file: mrcfile would take the memory for it first."""
    raw = np.fromfile(path, HEADER_DTYPE, 1)
    lengths = (int(raw["nsymbt"][0]), int(raw.byteswap()["nsymbt"][0]))
    if not any(0 <= length <= actual - _HEADER_BYTES for length in lengths):
        raise InputError(
            f"{path}: not an MRC file, or truncated: its header announces {lengths[0]} more bytes of header"
        )


def _parsed(path: Path, header: np.recarray, dtype: np.dtype) -> MrcHeader:
    shape = (int(header.nz), int(header.ny), int(header.nx))
    if min(shape) < 1:
        raise InputError(f"{path}: an MRC header with the impossible size {shape} (sections, rows, columns)")
    if dtype.kind == "c" or int(header.mode) not in (0, 1, 2, 6, 12):
        raise InputError(f"{path}: MRC mode {int(header.mode)} holds no plain images; convert it to mode 2 (float32)")
    if int(header.mode) == 0 and _unsigned_bytes(header):
        dtype = np.dtype(np.uint8)
    cell = (float(header.cella.x), float(header.cella.y), float(header.cella.z))
    grid = (int(header.mx), int(header.my), int(header.mz))
    voxel = tuple(a / m if m > 0 and math.isfinite(a) else 0.0 for a, m in zip(cell, grid, strict=True))
    axes = (int(header.maps), int(header.mapr), int(header.mapc))
    if sorted(axes) != [1, 2, 3]:
        # Old programs leave these fields empty; the order is then the usual one.
        axes = (3, 2, 1)
    offset = _HEADER_BYTES + int(header.nsymbt)
    return MrcHeader(path, shape, dtype, offset, (voxel[0], voxel[1], voxel[2]), axes)


def _unsigned_bytes(header: np.recarray) -> bool:
    """IMOD before 2012 wrote mode 0 unsigned; its stamp and first flag say so."""
    stamp, flags = np.frombuffer(header.extra2.tobytes()[40:48], header.nx.dtype)
    return int(stamp) == _IMOD_STAMP and not int(flags) & 1


def _cubic_voxel(header: MrcHeader) -> float:
    x, y, z = header.voxel_size
    if min(x, y, z) <= 0:
        logger.warning("%s: no voxel size in the header; 1 Å is taken", header.path)
        return 1.0
    if max(x, y, z) / min(x, y, z) > 1.01:
        raise InputError(
            f"{header.path}: voxels of {x:.4g} x {y:.4g} x {z:.4g} Å; equal sides are needed, resample it first"
        )
    return x


def _describe(shape: tuple[int, int, int]) -> str:
    return f"{shape[0]} sections of {shape[1]} x {shape[2]}"
