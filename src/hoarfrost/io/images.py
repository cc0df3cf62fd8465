"""Images of many stack files, read when they are asked for through a bounded pool of open files."""

from __future__ import annotations

import os
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

    Headers are read and checked at once; images only when asked for. Reading is safe from several threads.

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
        self._open_files: OrderedDict[int, _OpenFile] = OrderedDict()
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
        for group in _runs(file[order], np.zeros_like(order)):
            places = order[group]
            opened = self._open(int(file[places[0]]))
            for run in _runs(index[places], np.arange(len(places))):
                start, where = int(index[places[run.start]]), places[run]
                if np.all(np.diff(where) == 1):
                    opened.read(start, output[where[0] : where[-1] + 1])
                else:
                    block = np.empty((len(where), *output.shape[1:]), np.float32)
                    opened.read(start, block)
                    output[where] = block
        return images

    def _open(self, number: int) -> _OpenFile:
        with self._lock:
            if number not in self._open_files:
                while len(self._open_files) >= _OPEN_FILES:
                    self._open_files.popitem(last=False)
                self._open_files[number] = _OpenFile(self.headers[number])
            self._open_files.move_to_end(number)
            return self._open_files[number]

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


class _OpenFile:
    """A stack file, open until nobody holds this any more: a thread may still read from what the pool let go."""

    def __init__(self, header: MrcHeader) -> None:
        self._header = header
        try:
            self._descriptor = os.open(header.path, os.O_RDONLY)
        except OSError as error:
            raise self._changed(str(error.strerror)) from error

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read(self, start: int, images: np.ndarray) -> None:
        """Fill float32 ``images``, one block of memory, from image ``start`` on."""
        dtype = self._header.dtype
        stored = images if dtype == images.dtype else np.empty(images.shape, dtype)
        buffer = stored.data.cast("B")
        offset = self._header.offset + start * stored[0].nbytes
        # One call may return less than it was asked for.
        while len(buffer) > 0:
            try:
                count = os.preadv(self._descriptor, [buffer], offset)
            except OSError as error:
                raise self._changed(str(error.strerror)) from error
            if count == 0:
                raise self._changed("it has become shorter")
            buffer, offset = buffer[count:], offset + count
        if stored is not images:
            images[:] = stored

    def _changed(self, reason: str) -> InputError:
        return InputError(f"{self._header.path}: cannot be read any more ({reason}); was it changed during the run?")


def _runs(values: np.ndarray, ramp: np.ndarray) -> list[slice]:
    """Slices over which ``values - ramp`` stays the same."""
    edges = np.flatnonzero(np.diff(values - ramp)) + 1
    return [slice(int(a), int(b)) for a, b in zip([0, *edges], [*edges, len(values)], strict=True) if a < b]
