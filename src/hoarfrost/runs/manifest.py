"""``run.json``: what was asked, of which files, on which machine, and what came of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from hoarfrost import __version__
from hoarfrost.errors import InputError
from hoarfrost.io.files import replacing

MANIFEST_NAME = "run.json"

Status = Literal["running", "interrupted", "failed", "finished"]

_HEAD_BYTES = 1 << 20
_FILES_LOOKED_AT = 256


class InputRecord(BaseModel):
    """What tells an input apart from another.

    A table is known by the hash of all of it. Image stacks are too long for that: they are known by their sizes,
    times of change and a hash of their beginnings, of at most 256 of them spread evenly over the list.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    files: int
    bytes: int
    sha256: str
    hashed: Literal["whole", "sizes, times and heads"]

    def same_content(self, other: InputRecord) -> bool:
        """Whether the other has the same content; the place may differ."""
        return (self.files, self.bytes, self.sha256, self.hashed) == (
            other.files,
            other.bytes,
            other.sha256,
            other.hashed,
        )


def table_record(path: Path) -> InputRecord:
    """The record of a table, model or other small file, by all of its content."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_HEAD_BYTES):
                digest.update(block)
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return InputRecord(path=str(path), files=1, bytes=size, sha256=digest.hexdigest(), hashed="whole")


def stacks_record(paths: Sequence[Path]) -> InputRecord:
    """The record of the image stacks of a table."""
    step = -(-len(paths) // _FILES_LOOKED_AT)
    digest, size = hashlib.sha256(), 0
    for path in paths[::step]:
        try:
            with path.open("rb") as file:
                digest.update(file.read(_HEAD_BYTES // _FILES_LOOKED_AT if len(paths) > 1 else _HEAD_BYTES))
                status = os.fstat(file.fileno())
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
        size += status.st_size
    name = str(paths[0]) if len(paths) == 1 else f"{paths[0]} ... {paths[-1]}"
    return InputRecord(
        path=name, files=len(paths), bytes=size, sha256=digest.hexdigest(), hashed="sizes, times and heads"
    )


class Manifest(BaseModel):
    """The record of one run; written anew, whole, whenever it changes."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    format: Literal[1] = 1
    version: str = __version__
    verb: str
    command: tuple[str, ...] = ()  # the command line as it was given
    config: dict[str, Any]
    seed: int | None = None
    inputs: tuple[InputRecord, ...] = ()
    machine: dict[str, Any] = {}
    status: Status = "running"
    started: str
    ended: str | None = None
    attempts: int = 1  # how often it was started or resumed
    seconds: float = 0.0  # wall time of all attempts
    timings: dict[str, float] = {}  # seconds of each stage, all attempts together
    peak_memory_bytes: int = 0
    results: dict[str, Any] = {}
    warnings: tuple[str, ...] = ()
    files: tuple[str, ...] = ()  # what the run wrote, relative to its folder

    def write(self, folder: Path) -> None:
        """Put the record into its folder, whole or not at all."""
        with replacing(folder / MANIFEST_NAME) as temporary:
            temporary.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The record in a folder.

        Raises
        ------
        InputError
            If there is none, or what is there is not the record of a hoarfrost run.
        """
        path = folder / MANIFEST_NAME
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise InputError(f"{folder}: not the folder of a hoarfrost run (it has no {MANIFEST_NAME})") from error
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        except ValidationError as error:
            raise InputError(f"{path}: not the record of a hoarfrost run ({_first(error)})") from error

    def differences(self, other: Manifest) -> list[str]:
        """In what another run differs from this one, in words; empty if it is the same run."""
        if other.verb != self.verb:
            return [f"it is of 'hoarfrost {self.verb}'"]
        words = [
            f"{name} was {self.config.get(name)}, is now {other.config.get(name)}"
            for name in self.config | other.config
            if self.config.get(name) != other.config.get(name)
        ]
        if len(other.inputs) != len(self.inputs):
            words.append("its input files are others")
        pairs = zip(self.inputs, other.inputs, strict=False)
        return words + [f"{new.path} has changed" for old, new in pairs if not old.same_content(new)]

    @property
    def fingerprint(self) -> str:
        """One name for inputs, settings and version: states of runs with the same one can be exchanged."""
        content = self.model_dump_json(include={"version", "verb", "config"})
        content += "".join(record.sha256 for record in self.inputs)
        return hashlib.sha256(content.encode()).hexdigest()


def now() -> str:
    """The time as it stands in records."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _first(error: ValidationError) -> str:
    """The first complaint of a validation as one line."""
    detail = error.errors()[0]
    place = ".".join(str(part) for part in detail["loc"])
    return f"{place}: {detail['msg']}" if place else str(detail["msg"])
