"""States of a run on disk: one safetensors file each, whole or not at all, the last two kept."""

from __future__ import annotations

import json
import logging
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hoarfrost.errors import InputError
from hoarfrost.io.files import replacing

FORMAT = "2"
"""Another one whenever the numbers of a state come to mean something else, so that no old state is gone on with."""

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

_log = logging.getLogger("hoarfrost")


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoints of one run in a folder; a :class:`hoarfrost.optimise.loop.CheckpointStore`.

    Parameters
    ----------
    folder : where the two files are; made when first needed.
    fingerprint : names the inputs and settings of the run. A checkpoint with another one is not used.
    """

    folder: Path
    fingerprint: str = ""

    @property
    def current(self) -> Path:
        """The file of the last state."""
        return self.folder / "checkpoint.safetensors"

    @property
    def previous(self) -> Path:
        """The file of the state before, for the case that the last one is damaged."""
        return self.folder / "checkpoint.previous.safetensors"

    def save(self, state: dict[str, Tensor], stage: str, step: int) -> None:
        """Write a state that stands before step ``step`` of ``stage``.

        The file is complete on disk before it gets its name: a process or machine that dies at any moment leaves a
        readable checkpoint behind.

        Raises
        ------
        InputError
            If the disk is full or the folder cannot be written; the checkpoints that were there stay.
        """
        position = {"format": FORMAT, "fingerprint": self.fingerprint, "stage": stage, "step": str(step)}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be made ({error.strerror})") from error
        with replacing(self.current) as temporary:
            with temporary.open("wb") as file:
                write_state(file, state, position)
                file.flush()
                os.fsync(file.fileno())
            if self.current.exists():
                os.replace(self.current, self.previous)

    def load(self) -> tuple[dict[str, Tensor], str, int] | None:
        """The last readable state (on the CPU) and where it stands, or None.

        A damaged file is removed with a logged warning, and the one before it is taken.

        Raises
        ------
        InputError
            If the checkpoint belongs to other inputs or settings.
        """
        for path in (self.current, self.previous):
            if not path.exists():
                continue
            try:
                state, position = read_state(path)
            except DamagedCheckpointError as damage:
                _log.warning("%s: the checkpoint is damaged (%s); going back to the one before", path, damage)
                path.unlink()
                continue
            if position["format"] != FORMAT or position["fingerprint"] != self.fingerprint:
                raise InputError(
                    f"{path}: this checkpoint was made with other inputs, settings or another version of hoarfrost; "
                    "use --force to start again, or another folder"
                )
            return state, position["stage"], int(position["step"])
        return None

    def remove(self) -> None:
        """Delete both files."""
        for path in (self.current, self.previous):
            path.unlink(missing_ok=True)


class DamagedCheckpointError(Exception):
    """A file that is not what was written."""


def write_state(file: BinaryIO, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors in the safetensors layout, one after another without a copy of the whole.

    The layout: eight bytes of header length, a JSON header with type, shape and offsets, the values. Complex tensors
    are kept as pairs of reals and named in the metadata, with a checksum of all values.
    """
    names = sorted(state)
    header: dict[str, object] = {}
    offset = checksum = 0
    for name in names:
        real = _as_real(state[name])
        values = _bytes(real)
        span = [offset, offset + values.nbytes]
        header[name] = {"dtype": _DTYPES[real.dtype], "shape": list(real.shape), "data_offsets": span}
        checksum = zlib.crc32(values, checksum)
        offset += values.nbytes
    complex_names = [name for name in names if state[name].is_complex()]
    header["__metadata__"] = metadata | {"complex": json.dumps(complex_names), "checksum": str(checksum)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little"))
    file.write(text)
    for name in names:
        file.write(_bytes(_as_real(state[name])))


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata as :func:`write_state` wrote them.

    Raises
    ------
    DamagedCheckpointError
        If the file is truncated or its values are not those that were written.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = dict(file.metadata() or {})
            stored = {name: file.get_tensor(name).clone() for name in sorted(file.keys())}
    except (SafetensorError, OSError) as error:
        raise DamagedCheckpointError(str(error)) from error
    if not {"format", "fingerprint", "stage", "step", "complex", "checksum"} <= metadata.keys():
        raise DamagedCheckpointError("its header is not that of a checkpoint")
    checksum = 0
    for tensor in stored.values():
        checksum = zlib.crc32(_bytes(tensor), checksum)
    if str(checksum) != metadata["checksum"]:
        raise DamagedCheckpointError("its values are not those that were written")
    complex_names = set(json.loads(metadata["complex"]))
    state = {name: torch.view_as_complex(t) if name in complex_names else t for name, t in stored.items()}
    return state, metadata


def _as_real(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().resolve_conj().resolve_neg()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _bytes(tensor: Tensor) -> memoryview:
    """The values of a real tensor in memory order; a view where it is contiguous on the CPU."""
    return tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
