"""Nothing that exists is overwritten unless the user says so."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hoarfrost.errors import InputError


def require_new(paths: Iterable[Path], force: bool) -> None:
    """Refuse to go on if an output exists and ``--force`` was not given."""
    standing = [path for path in paths if path.exists()]
    if standing and not force:
        raise InputError(f"{standing[0]}: exists; give --force to replace it, or another name")
