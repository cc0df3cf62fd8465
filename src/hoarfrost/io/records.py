"""Numpy records with named fields, as ``.cs`` files hold them: loading, joining by ``uid``, exchanging fields."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from hoarfrost.errors import InputError
from hoarfrost.io.files import existing_file
from hoarfrost.io.table import ImageNames

_NUMPY, _COMPRESSED = b"\x93NUMPY", b"\x95CSDAT"


def load_records(path: Path) -> np.ndarray:
    """Read a ``.cs`` file in the plain numpy layout; nothing in it is ever unpickled.

    Raises
    ------
    InputError
        Another kind of file, cryoSPARC's compressed layout (with what to do about it), or a damaged file.
    """
    with existing_file(path).open("rb") as stream:
        magic = stream.read(6)
    if magic == _COMPRESSED:
        raise InputError(
            f"{path}: is in cryoSPARC's compressed layout; with cryosparc-tools rewrite it as "
            "Dataset.load(file).save(other, format=1)"
        )
    if magic != _NUMPY:
        raise InputError(f"{path}: not a cryoSPARC .cs file (a numpy table is expected)")
    try:
        data: Any = np.load(path, allow_pickle=False, max_header_size=2**26)
    except (ValueError, TypeError, EOFError, OSError, SyntaxError, TokenError, MemoryError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: a damaged or truncated .cs file: {reason}") from error
    if data.dtype.names is None or data.ndim != 1:
        raise InputError(f"{path}: a numpy file without named fields; not a cryoSPARC particle table")
    return data


def join_records(data: np.ndarray, extra: np.ndarray) -> np.ndarray | None:
    """``data`` with the fields it lacks, matched by uid; None where some particle is not in ``extra``."""
    if "uid" not in (data.dtype.names or ()) or "uid" not in (extra.dtype.names or ()) or len(extra) == 0:
        return None
    order = np.argsort(extra["uid"])
    places = order[np.searchsorted(extra["uid"], data["uid"], sorter=order).clip(max=len(extra) - 1)]
    if not np.array_equal(extra["uid"][places], data["uid"]):
        return None
    known = set(data.dtype.names or ())
    return with_fields(data, {name: extra[name][places] for name in extra.dtype.names or () if name not in known})


def with_fields(data: np.ndarray, fields: Mapping[str, np.ndarray]) -> np.ndarray:
    """A copy with fields exchanged in place or added at the end."""
    if not fields:
        return data
    columns = {name: data[name] for name in data.dtype.names or ()} | dict(fields)
    grown = np.empty(len(data), dtype=[(name, values.dtype, values.shape[1:]) for name, values in columns.items()])
    for name, values in columns.items():
        grown[name] = values
    return grown


def without_fields(data: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """A copy lacking these fields."""
    kept = {name: data[name] for name in data.dtype.names or () if name not in set(names)}
    result = np.empty(len(data), dtype=[(name, values.dtype, values.shape[1:]) for name, values in kept.items()])
    for name, values in kept.items():
        result[name] = values
    return result


def unique_ids(names: ImageNames) -> np.ndarray:
    """A 64-bit ``uid`` for each particle, the same whenever the same images are named."""
    digests = [
        hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest() for name in names.relion()
    ]
    return np.frombuffer(b"".join(digests), dtype="<u8")


def decimal(values: np.ndarray) -> np.ndarray:
    """As float64: the shortest decimal that a float32 stands for, so that 2.95 Å is not 2.950000047683716 Å."""
    return values.astype("S32").astype(np.float64) if values.dtype.kind == "f" else values.astype(np.float64)
