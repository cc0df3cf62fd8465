"""The folder of a run: made once, resumed by the same command, never overwritten unasked."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hoarfrost.errors import InputError, Interrupted
from hoarfrost.io.checkpoint import Checkpoint
from hoarfrost.io.files import all_or_none
from hoarfrost.optimise.events import Event, Message, StageDone
from hoarfrost.runs.lock import LOCK_NAME, FolderLock
from hoarfrost.runs.machine import describe_machine, peak_memory
from hoarfrost.runs.manifest import MANIFEST_NAME, InputRecord, Manifest, Status, now

CACHE_NAME = "cache"


class RunFolder:
    """A run's folder, locked for this process while it is open (``with RunFolder.open(...) as folder``).

    When the block ends with an exception, ``run.json`` says so: interrupted or failed. A process that is killed
    leaves it at running; either way the same command goes on from the last checkpoint.
    """

    def __init__(self, path: Path, manifest: Manifest, lock: FolderLock, *, resumed: bool) -> None:
        self.path = path
        self.manifest = manifest
        self.resumed = resumed
        self._lock = lock
        self._began = time.monotonic()
        self._seconds_before = manifest.seconds

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        verb: str,
        config: Mapping[str, Any],
        inputs: Sequence[InputRecord],
        command: Sequence[str] = (),
        seed: int | None = None,
        force: bool = False,
    ) -> RunFolder:
        """Make a run folder, or find the same run in it.

        Parameters
        ----------
        path : the folder; its parents are made too.
        verb, config, inputs : what is done, the resolved settings and the input files, which make a run what it is.
        command, seed : kept in the record.
        force : start again where another run (or the same) stands; removes the files which that wrote, and no others.

        Returns
        -------
        RunFolder
            ``finished`` if the same run is complete; ``resumed`` if it had begun.

        Raises
        ------
        InputError
            If the folder cannot be written, holds something that is not a run or is another run (without ``force``),
            or another process works in it.
        """
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise InputError(f"{path}: is a file; give a folder for the run")
        _refuse_foreign(path)
        wanted = Manifest(
            verb=verb,
            command=tuple(command),
            config=_as_json(config),
            seed=seed,
            inputs=tuple(inputs),
            machine=describe_machine(),
            started=now(),
        )
        if (path / MANIFEST_NAME).exists() and not force:
            _refuse_other(Manifest.read(path), wanted, path)
        with all_or_none([path / MANIFEST_NAME]):
            lock = FolderLock(path)
            try:
                return cls._locked(path, wanted, lock, force=force)
            except BaseException:
                lock.release()
                raise

    @classmethod
    def _locked(cls, path: Path, wanted: Manifest, lock: FolderLock, *, force: bool) -> RunFolder:
        _remove_unfinished_writes(path)
        if (path / MANIFEST_NAME).exists():
            there = Manifest.read(path)
            if not force:
                _refuse_other(there, wanted, path)
                _take_up(there, wanted, path)
                return cls(path, there, lock, resumed=True)
            _remove_run(path, there)
        wanted.write(path)
        return cls(path, wanted, lock, resumed=False)

    @property
    def finished(self) -> bool:
        """Whether the run is complete."""
        return self.manifest.status == "finished"

    @property
    def cache(self) -> Path:
        """A folder for what only the running method needs; it goes when the run is complete."""
        folder = self.path / CACHE_NAME
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def checkpoint(self) -> Checkpoint:
        """Where the states of this run are kept."""
        return Checkpoint(self.path / CACHE_NAME, self.manifest.fingerprint)

    def output(self, name: str) -> Path:
        """The path of a file that the run is about to write; it is entered into the record first."""
        if name not in self.manifest.files:
            self.manifest.files = (*self.manifest.files, name)
            self._write()
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def listen(self, event: Event) -> None:
        """Keep the seconds of stages and the warnings in the record."""
        if isinstance(event, StageDone):
            timings = dict(self.manifest.timings)
            timings[event.stage] = timings.get(event.stage, 0.0) + event.seconds
            self.manifest.timings = timings
            self._write()
        elif isinstance(event, Message) and event.level == "warning" and event.text not in self.manifest.warnings:
            self.manifest.warnings = (*self.manifest.warnings, event.text)
            self._write()

    def finish(self, results: Mapping[str, Any]) -> None:
        """The run is complete: keep its results, and remove what only a running method needs."""
        self.manifest.results = _as_json(results)
        self._end("finished")
        shutil.rmtree(self.path / CACHE_NAME, ignore_errors=True)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None and not self.finished:
                stopped = isinstance(error, Interrupted | KeyboardInterrupt)
                self._end("interrupted" if stopped else "failed")
        except InputError:
            # On a full disk the record cannot be written either; what filled it is the error to report.
            if error is None:
                raise
        finally:
            self._lock.release()

    def _end(self, status: Status) -> None:
        self.manifest.status = status
        self.manifest.ended = now()
        self._write()

    def _write(self) -> None:
        self.manifest.seconds = self._seconds_before + time.monotonic() - self._began
        self.manifest.peak_memory_bytes = max(self.manifest.peak_memory_bytes, peak_memory())
        self.manifest.write(self.path)


def _refuse_foreign(path: Path) -> None:
    """A folder with something in it must hold a run of ours."""
    try:
        names = set(os.listdir(path)) if path.exists() else set()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); choose another folder") from error
    unfinished = {name for name in names if name.startswith(f".{MANIFEST_NAME}.") and name.endswith(".part")}
    if names - unfinished - {LOCK_NAME} and MANIFEST_NAME not in names:
        raise InputError(f"{path}: is not empty and holds no hoarfrost run; choose another folder")
    if MANIFEST_NAME in names:
        Manifest.read(path)


def _refuse_other(there: Manifest, wanted: Manifest, path: Path) -> None:
    """Only the same run is gone on with."""
    different = there.differences(wanted)
    if there.status != "finished" and there.version != wanted.version:
        different.append(f"it was begun by hoarfrost {there.version}, this is {wanted.version}")
    if different:
        shown = different[:3] + ([f"{len(different) - 3} more"] if len(different) > 3 else [])
        raise InputError(
            f"{path}: holds another run ({'; '.join(shown)}); use --force to replace it, or another folder"
        )


def _take_up(there: Manifest, wanted: Manifest, path: Path) -> None:
    """Make the record of an earlier attempt that of this one."""
    if there.status != "finished":
        there.attempts += 1
        there.status, there.ended, there.machine = "running", None, wanted.machine
        there.write(path)


def _remove_unfinished_writes(path: Path) -> None:
    """Temporary files of a process that was killed while writing."""
    for folder in (path, path / CACHE_NAME):
        for part in folder.glob(".*.part"):
            part.unlink(missing_ok=True)


def _remove_run(path: Path, manifest: Manifest) -> None:
    """Remove what a run wrote, and folders that are empty then; the record goes last."""
    shutil.rmtree(path / CACHE_NAME, ignore_errors=True)
    # The record is a file that anyone may have edited: nothing outside the folder is touched on its word.
    files = [path / name for name in manifest.files if (path / name).resolve().is_relative_to(path.resolve())]
    for file in files:
        if file.is_file() or file.is_symlink():
            file.unlink()
    for folder in sorted({file.parent for file in files} - {path}, reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    (path / MANIFEST_NAME).unlink()


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they look after a journey through JSON, so that they can be compared with a record."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(values), default=str))
    return plain
