"""Writing a file, or several that belong together, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hoarfrost.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name next to ``path``; what was written there takes its place when the block ends well.

    A reader sees the old file or the new one, never half of one. A full disk, a missing folder or a missing
    permission becomes an :class:`InputError`, and whatever stood at ``path`` stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        # numpy's own writing knows of a short write but not of its cause.
        reason = error.strerror or f"the disk may be full ({error})"
        raise InputError(f"{path}: cannot be written: {reason}; choose another place for it") from error
    finally:
        # The writer's own failure is the one to report, not that of tidying up after it.
        if os.access(temporary, os.W_OK):
            temporary.unlink(missing_ok=True)


@contextmanager
def all_or_none(paths: Sequence[Path]) -> Iterator[None]:
    """Make the folders of these files; if the block fails, files and folders that were not there before go again.

    For outputs that make no sense without one another. A folder that cannot be made is an :class:`InputError`.
    """
    new = [path for path in paths if not path.exists()]
    made = {folder for path in new for folder in path.parents if not folder.is_dir()}
    try:
        for folder in sorted(made):
            _make(folder)
        yield
    except BaseException:
        # The block's own failure is the one to report, not that of tidying up after it.
        for path in new:
            with suppress(OSError):
                path.unlink()
        for folder in sorted(made, reverse=True):
            with suppress(OSError):
                folder.rmdir()
        raise


def _make(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}; choose another place for it") from error


def existing_file(path: Path) -> Path:
    """The path itself if a file is there; else an :class:`InputError` naming it."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; a file is needed")
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: cannot be read; look at its permissions")
    return path
