"""run.json: what identifies inputs, what differs between runs, and records that cannot be read."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from hoarfrost.errors import InputError
from hoarfrost.runs.machine import available_memory, describe_machine, peak_memory, total_memory
from hoarfrost.runs.manifest import Manifest, now, stacks_record, table_record


def record(**changes: object) -> Manifest:
    return Manifest.model_validate({"verb": "abinit", "config": {"seed": 0}, "started": now()} | changes)


def test_tables_are_known_by_their_content(tmp_path: Path) -> None:
    path = tmp_path / "a.star"
    path.write_bytes(b"x" * 3_000_000)
    first = table_record(path)
    assert first.sha256 == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    path.rename(tmp_path / "b.star")
    assert table_record(tmp_path / "b.star").same_content(first)
    (tmp_path / "b.star").write_bytes(b"x" * 2_999_999 + b"y")
    assert not table_record(tmp_path / "b.star").same_content(first)
    with pytest.raises(InputError, match=r"a\.star: cannot be read"):
        table_record(path)


def test_stacks_are_known_by_sizes_times_and_heads(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.mrcs" for number in range(3)]
    for path in paths:
        path.write_bytes(bytes(5000))
        os.utime(path, (1000, 1000))
    first = stacks_record(paths)
    assert first.files == 3
    assert first.bytes == 15000
    assert stacks_record(paths).same_content(first)
    assert not stacks_record(paths[:2]).same_content(first)
    os.utime(paths[1], (1000, 2000))
    assert not stacks_record(paths).same_content(first)
    os.utime(paths[1], (1000, 1000))
    paths[2].write_bytes(b"1" + bytes(4999))
    os.utime(paths[2], (1000, 1000))
    assert not stacks_record(paths).same_content(first)


def test_a_record_comes_back_from_its_file(tmp_path: Path) -> None:
    manifest = record(results={"resolution": 3.25}, timings={"prepare": 0.1}, warnings=("one",), seed=3)
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest
    assert list(tmp_path.iterdir()) == [tmp_path / "run.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not the record"),
        ("[1, 2]", "not the record"),
        ('{"verb": "abinit"}', r"config: Field required"),
        ("{", "not the record"),
    ],
)
def test_other_files_of_that_name(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=message) as refusal:
        Manifest.read(tmp_path)
    assert "\n" not in str(refusal.value)


def test_no_record(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not the folder of a hoarfrost run \(it has no run\.json\)"):
        Manifest.read(tmp_path)


def test_the_fingerprint_follows_what_decides_the_result(tmp_path: Path) -> None:
    first = record()
    assert record(command=("hoarfrost", "x"), status="failed", attempts=4).fingerprint == first.fingerprint
    assert record(config={"seed": 1}).fingerprint != first.fingerprint
    assert record(version="0.0.0").fingerprint != first.fingerprint
    path = tmp_path / "a.star"
    path.write_text("x")
    assert record(inputs=(table_record(path),)).fingerprint != first.fingerprint


def test_the_machine_describes_itself() -> None:
    machine = describe_machine()
    json.dumps(machine)
    assert machine["processor"]
    assert machine["torch"]
    assert 1_000_000 < peak_memory() < total_memory()
    assert 0 < available_memory() <= total_memory()
