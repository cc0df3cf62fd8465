"""Checkpoints: exact round trips, and what is left after damage, other settings and full disks."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from hoarfrost.errors import InputError
from hoarfrost.io.checkpoint import Checkpoint, read_state, write_state

STATE = {
    "rotations": torch.eye(3, dtype=torch.float64).repeat(5, 1, 1),
    "sums": torch.complex(torch.randn(4, 3), torch.randn(4, 3)),
    "half": torch.tensor([1, 2, 1]),
    "score": torch.tensor(1.5),
    "none": torch.zeros(0, 3),
    "mask": torch.tensor([True, False]),
    "turned": torch.arange(12.0).reshape(3, 4).T,
    "spread": torch.ones(1).expand(6),
    "conjugate": torch.tensor([1 + 2j]).conj(),
    "small": torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype, name
        assert torch.equal(first[name], second[name]), name


def test_a_state_comes_back_exactly(tmp_path: Path) -> None:
    store = Checkpoint(tmp_path / "new" / "folder", "f")
    assert store.load() is None
    store.save(STATE, "refine", 7)
    loaded = store.load()
    assert loaded is not None
    assert loaded[1:] == ("refine", 7)
    assert_same(loaded[0], STATE)


def test_tensors_that_share_memory_are_kept_apart(tmp_path: Path) -> None:
    one = torch.arange(6.0)
    store = Checkpoint(tmp_path)
    store.save({"a": one, "b": one, "c": one[2:4]}, "s", 0)
    state = store.load()[0]  # type: ignore[index]
    state["a"] += 1
    assert torch.equal(state["b"], one)
    assert torch.equal(state["c"], one[2:4])


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), st.integers(0, 9), max_size=4))
def test_any_names_and_sizes(tmp_path_factory: pytest.TempPathFactory, sizes: dict[str, int]) -> None:
    sizes.pop("__metadata__", None)
    state = {name: torch.randn(size) for name, size in sizes.items()}
    store = Checkpoint(tmp_path_factory.mktemp("state"))
    store.save(state, "s", 0)
    assert_same(store.load()[0], state)  # type: ignore[index]


def test_the_layout_is_that_of_safetensors(tmp_path: Path) -> None:
    real = {name: tensor for name, tensor in STATE.items() if not tensor.is_complex()}
    with (tmp_path / "x").open("wb") as file:
        write_state(file, real, {"format": "1"})
    assert_same(load_file(tmp_path / "x"), real)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.99])
def test_a_truncated_file_falls_back_to_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, share: float
) -> None:
    store = Checkpoint(tmp_path)
    store.save(STATE, "first", 1)
    store.save(STATE, "second", 2)
    os.truncate(store.current, int(share * store.current.stat().st_size))
    with caplog.at_level(logging.WARNING, "hoarfrost"):
        loaded = store.load()
    assert loaded is not None
    assert loaded[1:] == ("first", 1)
    assert_same(loaded[0], STATE)
    assert "damaged" in caplog.text
    assert "checkpoint.safetensors" in caplog.text


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8, 0.999])
def test_a_flipped_bit_is_noticed(tmp_path: Path, place: float) -> None:
    store = Checkpoint(tmp_path)
    state = {"x": torch.randn(1000)}
    store.save(state, "first", 1)
    store.save(state, "second", 2)
    content = bytearray(store.current.read_bytes())
    content[int(place * len(content))] ^= 4
    store.current.write_bytes(content)
    loaded = store.load()
    assert loaded is not None
    assert loaded[1:] == ("first", 1)


def test_a_damaged_file_never_replaces_a_good_one(tmp_path: Path) -> None:
    store = Checkpoint(tmp_path)
    store.save(STATE, "first", 1)
    store.save(STATE, "second", 2)
    os.truncate(store.current, 100)
    store.load()
    store.save(STATE, "third", 3)
    os.truncate(store.current, 100)
    loaded = store.load()
    assert loaded is not None
    assert loaded[1] == "first"
    store.previous.unlink()
    assert store.load() is None


def test_another_safetensors_file_is_not_a_checkpoint(tmp_path: Path) -> None:
    store = Checkpoint(tmp_path)
    with store.current.open("wb") as file:
        write_state(file, STATE, {})
    assert store.load() is None


def test_other_settings_are_refused(tmp_path: Path) -> None:
    Checkpoint(tmp_path, "one").save(STATE, "s", 1)
    with pytest.raises(InputError, match=r"made with other inputs, settings or another version.*--force"):
        Checkpoint(tmp_path, "two").load()
    assert Checkpoint(tmp_path, "one").load() is not None


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/cache: cannot be made"):
        Checkpoint(tmp_path / "file" / "cache").save(STATE, "s", 0)


FULL = """
import resource, sys
from pathlib import Path
import torch
from hoarfrost.errors import InputError
from hoarfrost.io.checkpoint import Checkpoint

store = Checkpoint(Path(sys.argv[1]))
store.save({"x": torch.ones(10)}, "first", 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    store.save({"x": torch.ones(100_000)}, "second", 2)
except InputError as error:
    print(error)
state, stage, step = store.load()
assert (stage, step) == ("first", 1) and state["x"].sum() == 10
print(sorted(path.name for path in Path(sys.argv[1]).iterdir()))
"""


def test_where_the_file_system_gives_no_room_the_checkpoint_before_stays(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    message, names = done.stdout.splitlines()
    assert "checkpoint.safetensors: cannot be written" in message
    assert names == "['checkpoint.safetensors']", "nothing half-written stays"


def test_state_and_metadata_are_read_without_a_store(tmp_path: Path) -> None:
    store = Checkpoint(tmp_path, "f")
    store.save(STATE, "s", 3)
    state, metadata = read_state(store.current)
    assert_same(state, STATE)
    assert {name: metadata[name] for name in ("stage", "step", "fingerprint")} == {
        "stage": "s",
        "step": "3",
        "fingerprint": "f",
    }
