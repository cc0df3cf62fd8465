"""Tables of points as PLY files: vertices with numbers of any name, one row a point.

Files are written binary, with the type that the numbers have, so that nothing is lost; binary and text are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from hoarfrost.errors import InputError
from hoarfrost.io.files import existing_file, replacing

_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}


def write_ply(path: Path, columns: Mapping[str, Shaped[Tensor, "n"]], comments: Mapping[str, str]) -> None:
    """Write a table of float32 or float64 columns of one length, with remarks ``name value``."""
    arrays = {name: column.detach().cpu().numpy() for name, column in columns.items()}
    names = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
    count = len(next(iter(arrays.values())))
    table = np.empty(count, dtype=[(name, array.dtype.newbyteorder("<")) for name, array in arrays.items()])
    for name, array in arrays.items():
        table[name] = array
    header = ["ply", "format binary_little_endian 1.0"]
    header += [f"comment {name} {value}" for name, value in comments.items()]
    header += [f"element vertex {count}", *(f"property {names[array.dtype]} {name}" for name, array in arrays.items())]
    with replacing(path) as temporary:
        temporary.write_bytes("\n".join([*header, "end_header", ""]).encode("ascii") + table.tobytes())


def read_ply(path: Path) -> tuple[dict[str, Shaped[Tensor, "n"]], dict[str, str]]:
    """The columns of the vertices, and the remarks.

    Raises
    ------
    InputError
        A file that is no PLY, is cut short, or whose first element is not a plain table of vertices.
    """
    data = existing_file(path).read_bytes()
    head, mark, body = data.partition(b"end_header\n")
    lines = head.decode("ascii", "replace").split("\n")
    if lines[0].strip() != "ply" or not mark:
        raise InputError(f"{path}: not a PLY file: it has to begin with 'ply' and a header up to 'end_header'")
    order, count, kinds, remarks, element = "", 0, [], {}, ""
    for line in lines[1:]:
        words = line.split()
        if words[:1] == ["format"] and len(words) > 1:
            order = words[1]
        elif words[:1] == ["comment"] and len(words) > 2:
            remarks[words[1]] = " ".join(words[2:])
        elif words[:1] == ["element"] and len(words) == 3:
            if not element and (words[1] != "vertex" or not words[2].isdigit()):
                raise InputError(f"{path}: the first element is {' '.join(words[1:])!r}; vertices are expected first")
            count, element = (int(words[2]), "vertex") if not element else (count, words[1])
        elif words[:1] == ["property"] and element == "vertex":
            if len(words) != 3 or words[1] not in _TYPES:
                raise InputError(f"{path}: a vertex with {line.strip()!r}; plain numbers are expected")
            kinds.append((words[2], _TYPES[words[1]]))
    if order not in _ORDERS or not kinds:
        raise InputError(f"{path}: no vertices, or a format other than {', '.join(_ORDERS)}")
    return _columns(path, body, order, count, kinds), remarks


def _columns(path: Path, body: bytes, order: str, count: int, kinds: list[tuple[str, str]]) -> dict[str, Tensor]:
    if order == "ascii":
        try:
            rows = [[float(word) for word in line.split()] for line in body.decode("ascii").split("\n")[:count]]
            table = torch.tensor(rows, dtype=torch.float64).reshape(count, len(kinds))
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{path}: {count} rows of {len(kinds)} numbers are expected after the header") from error
        return {name: table[:, place] for place, (name, _) in enumerate(kinds)}
    layout = np.dtype([(name, _ORDERS[order] + kind) for name, kind in kinds])
    if len(body) < count * layout.itemsize:
        raise InputError(
            f"{path}: cut short: {count} vertices of {layout.itemsize} bytes are expected, {len(body)} are left"
        )
    values = np.frombuffer(body, layout, count)
    return {name: torch.from_numpy(values[name].astype(values[name].dtype.newbyteorder("="))) for name, _ in kinds}
