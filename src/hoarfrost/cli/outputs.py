"""Nothing that exists is overwritten unless the user says so, and no work is done for what cannot be written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from hoarfrost.errors import InputError


def require_new(paths: Iterable[Path], force: bool) -> None:
    """Refuse to go on if an output exists and ``--force`` was not given, or stands for a folder."""
    for path in paths:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give the name of a file")
        if path.exists() and not force:
            raise InputError(f"{path}: exists; give --force to replace it, or another name")


def require_place(paths: Iterable[Path]) -> None:
    """Refuse to go on if the folder of an output is not there or cannot be written."""
    for path in paths:
        folder = path.parent
        if not folder.exists():
            raise InputError(
                f"{path}: cannot be written: there is no folder {folder}; make it, or choose another place"
            )
        if not folder.is_dir():
            raise InputError(f"{path}: cannot be written: {folder} is a file; choose another place for it")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(f"{path}: cannot be written: no permission in {folder}; choose another place for it")
