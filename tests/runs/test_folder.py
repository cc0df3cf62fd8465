"""Run folders: made, resumed, left alone when finished, refused when another's, never robbed of foreign files."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from hoarfrost.errors import InputError, Interrupted
from hoarfrost.optimise.events import Message, StageDone
from hoarfrost.runs.folder import RunFolder
from hoarfrost.runs.lock import LOCK_NAME, FolderLock, is_running
from hoarfrost.runs.manifest import InputRecord, Manifest, table_record


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "particles.star"
    path.write_text("data_\n")
    return path


def start(
    path: Path, inputs: Sequence[Path] = (), *, verb: str = "abinit", force: bool = False, **config: object
) -> RunFolder:
    records: list[InputRecord] = [table_record(one) for one in inputs]
    return RunFolder.open(path, verb=verb, config={"seed": 1} | config, inputs=records, force=force)


def test_a_new_run(tmp_path: Path, table: Path) -> None:
    with start(tmp_path / "deep" / "run", [table], levels=(1, 2)) as folder:
        assert not folder.resumed
        assert not folder.finished
        written = json.loads((folder.path / "run.json").read_text())
        assert written["status"] == "running"
        assert written["config"] == {"seed": 1, "levels": [1, 2]}
        assert written["inputs"][0]["path"] == str(table)
        assert len(written["inputs"][0]["sha256"]) == 64
        assert written["machine"]["cores"] >= 1
        folder.output("figures/one.png").write_text("x")
        (folder.cache / "bands.bin").write_text("x")
        folder.finish({"resolution": 3.5})
    assert not (folder.path / "cache").exists()
    assert not (folder.path / LOCK_NAME).exists()
    manifest = Manifest.read(folder.path)
    assert manifest.status == "finished"
    assert manifest.results == {"resolution": 3.5}
    assert manifest.files == ("figures/one.png",)
    assert manifest.peak_memory_bytes > 10_000_000


def test_an_unfinished_run_is_taken_up(tmp_path: Path, table: Path) -> None:
    folder = start(tmp_path / "run", [table], levels=(1, 2))
    folder.listen(StageDone("prepare", 2.0))
    folder.listen(Message("look out", "warning"))
    fingerprint = folder.checkpoint.fingerprint
    with pytest.raises(Interrupted), folder:
        raise Interrupted
    assert Manifest.read(folder.path).status == "interrupted"
    with start(tmp_path / "run", [table], levels=(1, 2)) as folder:
        assert folder.resumed
        assert not folder.finished
        assert folder.checkpoint.fingerprint == fingerprint
        folder.listen(StageDone("prepare", 3.0))
        folder.listen(Message("look out", "warning"))
        folder.finish({})
    manifest = Manifest.read(folder.path)
    assert manifest.attempts == 2
    assert manifest.timings == {"prepare": 5.0}
    assert manifest.warnings == ("look out",)


def test_a_finished_run_is_left_alone(tmp_path: Path, table: Path) -> None:
    with start(tmp_path / "run", [table]) as folder:
        folder.finish({"a": 1})
    before = (folder.path / "run.json").read_bytes()
    with start(tmp_path / "run", [table]) as folder:
        assert folder.finished
    assert (folder.path / "run.json").read_bytes() == before


def test_a_fault_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), start(tmp_path / "run") as folder:
        _ = 1 / 0
    assert Manifest.read(folder.path).status == "failed"
    with start(tmp_path / "run") as folder:
        assert folder.resumed


def test_another_run_is_refused_and_replaced_only_by_force(tmp_path: Path, table: Path) -> None:
    with start(tmp_path / "run", [table], symmetry="C1") as folder:
        folder.output("map.mrc").write_text("ours")
        folder.output("figures/one.png").write_text("ours")
        (folder.path / "notes.txt").write_text("theirs")
        (folder.path / "figures" / "mine.png").write_text("theirs")
        folder.finish({})
    before = {path.name: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
    with pytest.raises(InputError, match=r"holds another run \(symmetry was C1, is now D2\); use --force"):
        start(tmp_path / "run", [table], symmetry="D2")
    with pytest.raises(InputError, match="it is of 'hoarfrost abinit'"):
        start(tmp_path / "run", [table], symmetry="C1", verb="demo")
    table.write_text("data_other\n")
    with pytest.raises(InputError, match=r"particles\.star has changed"):
        start(tmp_path / "run", [table], symmetry="C1")
    assert {path.name: path.read_bytes() for path in folder.path.iterdir() if path.is_file()} == before
    with start(tmp_path / "run", [table], symmetry="D2", force=True) as folder:
        assert not folder.resumed
        left = {str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file()}
    assert left == {"run.json", "notes.txt", "figures/mine.png", LOCK_NAME}


def test_force_starts_the_same_run_again(tmp_path: Path) -> None:
    with start(tmp_path / "run") as folder:
        folder.checkpoint.save({}, "s", 1)
    with start(tmp_path / "run", force=True) as folder:
        assert not folder.resumed
        assert folder.checkpoint.load() is None


def test_a_record_cannot_make_force_remove_what_lies_outside(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with start(tmp_path / "run") as folder:
        folder.manifest.files = ("../precious", str(tmp_path / "precious"))
        folder.finish({})
    with start(tmp_path / "run", force=True):
        pass
    assert (tmp_path / "precious").exists()


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_something_else_is_refused(tmp_path: Path, force: bool) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="is not empty and holds no hoarfrost run; choose another folder"):
        start(tmp_path, force=force)
    (tmp_path / "run.json").write_text('{"accuracy": 1}')
    with pytest.raises(InputError, match=r"run\.json: not the record of a hoarfrost run"):
        start(tmp_path, force=force)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "thesis.tex"]


def test_a_file_in_the_place_of_the_folder(tmp_path: Path, table: Path) -> None:
    with pytest.raises(InputError, match="is a file; give a folder"):
        start(table)
    with pytest.raises(InputError, match="cannot be made"):
        start(table / "run")


def test_a_folder_that_cannot_be_written() -> None:
    with pytest.raises(InputError, match=r"cannot be made.*choose another place"):
        start(Path("/proc/hoarfrost-run"))


def test_another_version_may_look_but_not_go_on(tmp_path: Path) -> None:
    with start(tmp_path / "run") as folder:
        folder.manifest.version = "0.0.1"
        folder.manifest.write(folder.path)
    with pytest.raises(InputError, match=r"was begun by hoarfrost 0\.0\.1"):
        start(tmp_path / "run")
    manifest = Manifest.read(folder.path)
    manifest.status = "finished"
    manifest.write(folder.path)
    with start(tmp_path / "run") as folder:
        assert folder.finished


def test_half_written_files_of_a_killed_process_go(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "cache").mkdir(parents=True)
    (run / ".run.json.123.part").write_text("{")
    (run / "cache").rmdir()
    with start(run) as folder:
        (folder.cache / ".checkpoint.safetensors.9.part").write_text("x")
    with start(run) as folder:
        assert list(folder.path.rglob("*.part")) == []


HOLD = """
import sys, time
from pathlib import Path
from hoarfrost.runs.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_one_process_at_a_time_and_a_killed_one_leaves_the_folder_free(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"process {holder.pid} on .* is working in this folder; wait for it"):
            start(tmp_path)
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    assert (tmp_path / LOCK_NAME).exists()
    with start(tmp_path) as folder:
        assert not folder.resumed


def test_a_refused_folder_is_free_again(tmp_path: Path) -> None:
    with start(tmp_path, symmetry="C1"):
        pass
    with pytest.raises(InputError, match="another run"):
        start(tmp_path, symmetry="C2")
    lock = FolderLock(tmp_path)
    lock.release()


def test_who_is_running() -> None:
    import socket

    here = socket.gethostname()
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert is_running(here, os.getpid())
    assert not is_running(here, child.pid)
    assert is_running(here + "-other", child.pid)
