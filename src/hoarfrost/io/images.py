"""Images of many stack files, read lazily through a bounded pool of memory maps."""

from __future__ import annotations

import mmap
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.errors import InputError
from hoarfrost.io.mrc import COMPRESSED, MrcHeader, read_header

_OPEN_FILES = 32


class MrcImages:
    """An image source over stack files: particle ``i`` is image ``index[i]`` of ``files[file[i]]``.

    Headers are read and checked at once; images only when asked for. Pages are handed back to the system after every
    read, so that resident memory does not grow with the stack. Reading is safe from several threads.

    Parameters
    ----------
    files : the stack files.
    file : for each particle its place in ``files``.
    index : for each particle its image in that file, from 0.
    table : the table these come from, for messages.

    Raises
    ------
    InputError
        A file that cannot be read, is truncated or compressed, images that are not square or differ in size between
        files, or an index beyond the end of a stack.
    """

    def __init__(
        self, files: Sequence[Path], file: Int[Tensor, "n"], index: Int[Tensor, "n"], table: Path | None = None
    ) -> None:
        self.headers = tuple(read_header(path) for path in files)
        self.file = file.numpy()
        self.index = index.numpy()
        self._maps: OrderedDict[int, tuple[mmap.mmap, np.ndarray]] = OrderedDict()
        self._lock = threading.Lock()
        self._check(f"{table}, " if table else "")

    @property
    def box(self) -> int:
        """Side of an image in pixels."""
        return self.headers[0].shape[-1]

    @property
    def header_pixel_size(self) -> float:
        """Pixel size in the first file's header, Å; 0 where it is not set. Headers of stacks are often wrong."""
        return self.headers[0].voxel_size[0]

    def __len__(self) -> int:
        return len(self.index)

    def read(self, rows: Int[Tensor, "b"]) -> Float[Tensor, "b y x"]:
        """The images of these rows as float32, in the order asked for."""
        images = torch.empty(len(rows), self.box, self.box)
        output = images.numpy()
        wanted = rows.numpy()
        file, index = self.file[wanted], self.index[wanted]
        order = np.lexsort((index, file))
        with self._lock:
            for group in _runs(file[order], np.zeros_like(order)):
                places = order[group]
                mapped, stack = self._open(int(file[places[0]]))
                for run in _runs(index[places], np.arange(len(places))):
                    _copy(stack, index[places[run]], output, places[run])
                mapped.madvise(mmap.MADV_DONTNEED)
        return images

    def _open(self, number: int) -> tuple[mmap.mmap, np.ndarray]:
        if number in self._maps:
            self._maps.move_to_end(number)
            return self._maps[number]
        while len(self._maps) >= _OPEN_FILES:
            self._maps.popitem(last=False)
        self._maps[number] = _map_file(self.headers[number])
        return self._maps[number]

    def _check(self, prefix: str) -> None:
        first = self.headers[0]
        for header in self.headers:
            _, rows, columns = header.shape
            if header.path.suffix in COMPRESSED:
                raise InputError(
                    f"{prefix}{header.path}: images of a compressed stack cannot be read one by one; gunzip it, and "
                    "name the plain stack in the table"
                )
            if rows != columns:
                raise InputError(f"{prefix}{header.path}: images of {columns} x {rows} pixels; square ones are needed")
            if columns != first.shape[-1]:
                raise InputError(
                    f"{prefix}{header.path}: box {columns}, but {first.path} has box {first.shape[-1]}; "
                    "bring all images to one box first"
                )
        counts = np.array([header.shape[0] for header in self.headers])[self.file]
        beyond = np.flatnonzero((self.index >= counts) | (self.index < 0))
        if len(beyond):
            row = int(beyond[0])
            raise InputError(
                f"{prefix}row {row + 1} asks for image {int(self.index[row]) + 1} of "
                f"{self.headers[self.file[row]].path}, which holds {int(counts[row])}"
            )


class MissingImages:
    """Stands in for images that are not at hand, so that a table can be read and written without them."""

    def __init__(self, count: int, box: int | None, reason: str) -> None:
        self._count, self._box, self.reason = count, box, reason

    @property
    def box(self) -> int:
        """Side of an image in pixels; 0 where the table does not state it."""
        return self._box or 0

    def __len__(self) -> int:
        return self._count

    def read(self, rows: Int[Tensor, "b"]) -> Float[Tensor, "b y x"]:
        """Say which file is missing."""
        raise InputError(self.reason)


def _map_file(header: MrcHeader) -> tuple[mmap.mmap, np.ndarray]:
    try:
        with header.path.open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        return mapped, np.ndarray(header.shape, header.dtype, buffer=mapped, offset=header.offset)
    except (OSError, TypeError, ValueError) as error:
        raise InputError(f"{header.path}: cannot be read any more ({error}); was it changed during the run?") from error


def _runs(values: np.ndarray, ramp: np.ndarray) -> list[slice]:
    """Slices over which ``values - ramp`` stays the same."""
    edges = np.flatnonzero(np.diff(values - ramp)) + 1
    return [slice(int(a), int(b)) for a, b in zip([0, *edges], [*edges, len(values)], strict=True) if a < b]


def _copy(stack: np.ndarray, index: np.ndarray, output: np.ndarray, places: np.ndarray) -> None:
    """Copy consecutive images to their places; one block where those are consecutive as well."""
    start = int(index[0])
    if places[-1] - places[0] == len(places) - 1 and np.all(np.diff(places) == 1):
        output[places[0] : places[-1] + 1] = stack[start : start + len(index)]
    else:
        for offset, place in enumerate(places):
            output[place] = stack[start + offset]
