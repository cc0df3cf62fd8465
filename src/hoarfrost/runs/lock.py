"""One process at a time in a run folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from pathlib import Path

from hoarfrost.errors import InputError

LOCK_NAME = ".hoarfrost.lock"

_NO_LOCKS_HERE = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK}


class FolderLock:
    """A lock that ends with its process, however that ends.

    The kernel holds it where the file system knows locks. Where it does not (some cluster file systems), the process
    number written in the file decides, and one that is no longer running is passed over.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_NAME
        self._file = self._acquire()
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, json.dumps({"host": socket.gethostname(), "process": os.getpid()}).encode(), 0)

    def release(self) -> None:
        """Give the folder free."""
        self.path.unlink(missing_ok=True)
        os.close(self._file)

    def _acquire(self) -> int:
        while True:
            file = _open(self.path)
            try:
                self._lock(file)
                # Whoever held it before may have removed the file between our opening and our locking.
                if self.path.exists() and os.path.samestat(os.fstat(file), self.path.stat()):
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def _lock(self, file: int) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise self._taken(_owner(file)) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS_HERE:
                raise InputError(f"{self.path}: cannot be locked ({error.strerror})") from error
            owner = _owner(file)
            if owner is not None and is_running(*owner):
                raise self._taken(owner) from error

    def _taken(self, owner: tuple[str, int] | None) -> InputError:
        who = "another process" if owner is None else f"process {owner[1]} on {owner[0]}"
        return InputError(
            f"{self.path.parent}: {who} is working in this folder; wait for it, or choose another folder "
            f"(if it no longer runs, remove {self.path.name} there)"
        )


def is_running(host: str, process: int) -> bool:
    """Whether a process runs; one on another host is taken to."""
    if host != socket.gethostname():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"{path.parent}: cannot be written ({error.strerror}); choose another folder") from error


def _owner(file: int) -> tuple[str, int] | None:
    try:
        written = json.loads(os.pread(file, 4096, 0))
        return str(written["host"]), int(written["process"])
    except (ValueError, KeyError, TypeError):
        return None
