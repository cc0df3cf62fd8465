"""Where image files are looked for, and how a new table names them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hoarfrost.errors import InputError
from hoarfrost.io.table import ImageNames


def resolve_files(names: ImageNames, table: Path, root: Path | None) -> list[Path]:
    """Find every image file of a table.

    Tried in this order: the path as given, relative to the table's folder and to the two folders above it (project
    folders), relative to ``root``, and the bare file name in ``root`` and next to the table.

    Raises
    ------
    InputError
        Names the first missing file, its row and the places tried.
    """
    folder = table.absolute().parent
    above = [folder, *folder.parents][:3]
    found: list[Path] = []
    missing: list[tuple[int, str, list[Path]]] = []
    for number, name in enumerate(names.files):
        candidates = [Path(name), *(place / name for place in above)]
        if root is not None:
            candidates += [root / name, root / Path(name).name]
        candidates.append(folder / Path(name).name)
        hit = next((path for path in candidates if os.path.isfile(path)), None)
        if hit is None:
            missing.append((int(np.argmax(names.file == number)), name, candidates))
        else:
            found.append(hit)
    if missing:
        row, name, candidates = min(missing, key=lambda miss: miss[0])
        tried = ", ".join(dict.fromkeys(os.path.normpath(path) for path in candidates))
        raise InputError(
            f"{table}: row {row + 1}: image file {name} not found ({len(missing)} of {len(names.files)} files are "
            f"missing); tried {tried}; say where the images are with --root"
        )
    return found


def file_names(paths: Sequence[Path], table: Path) -> list[str]:
    """Paths as a new table next to them would put them: relative below its folder, absolute elsewhere."""
    folder = table.absolute().parent
    names = []
    for path in paths:
        full = path.absolute()
        names.append(os.fspath(full.relative_to(folder) if full.is_relative_to(folder) else full))
    return names
