"""What the benchmarks stand on: measured programs, records that lose nothing, tables."""

import argparse
import json
import sys

import pytest
import torch
from benchmarks.common import DATA_VARIABLE, Record, measured, shared_data, show


def options(folder, **changes):
    return argparse.Namespace(quick=False, again=False, threads=1, results=folder, **changes)


def test_a_program_is_measured_alone():
    """Its memory is its own, and not that of who started it or of programs before; its time is wall time."""
    ballast = torch.ones(50_000_000)
    large = measured([sys.executable, "-c", "import time; x = b'a' * 150_000_000; time.sleep(0.2)"])
    small = measured([sys.executable, "-c", "print('done')"])
    assert ballast.sum() > 0
    assert 150 < large.peak_mb < 190
    assert small.peak_mb < 30
    assert large.wall_s > 0.2
    assert (large.code, small.code) == (0, 0)
    assert small.last_line == "done"


def test_the_last_words_of_a_failure_hold_no_folder():
    failed = measured(
        [sys.executable, "-c", "import sys; sys.exit('error: /some/where/else/particles.star: no such file')"]
    )
    assert failed.code == 1
    assert failed.last_line == "error: particles.star: no such file"


def test_a_record_keeps_every_row_as_it_comes(tmp_path):
    record = Record.open("trial", options(tmp_path, box=64), {"wall_s": 1.0})
    record.add({"seed": 0}, {"wall_s": 0.5})
    assert len(json.loads((tmp_path / "trial.json").read_text())["rows"]) == 1
    record.add({"seed": 1}, {"wall_s": 0.7})
    content = json.loads((tmp_path / "trial.json").read_text())
    assert [row["wall_s"] for row in content["rows"]] == [0.5, 0.7]
    assert content["settings"] == {"quick": False, "threads": 1, "box": 64}
    assert content["bars"] == {"wall_s": 1.0}
    assert content["machine"]["cores"] >= 1
    assert set(content["versions"]) >= {"hoarfrost", "torch"}
    assert all(len(row["source"]) == 12 for row in content["rows"])


def test_what_is_recorded_is_not_measured_again(tmp_path):
    first = Record.open("trial", options(tmp_path), {})
    first.add({"seed": 0}, {"wall_s": 0.5})
    first.add({"seed": 1}, {"failed": "it broke"})
    second = Record.open("trial", options(tmp_path), {})
    assert second.done({"seed": 0})["wall_s"] == 0.5
    assert second.done({"seed": 1}) is None, "a failure is tried again"
    assert second.done({"seed": 2}) is None
    second.add({"seed": 1}, {"wall_s": 0.9})
    assert [row["key"]["seed"] for row in Record.open("trial", options(tmp_path), {}).rows] == [0, 1]


def test_rows_of_another_machine_or_code_are_told_apart(tmp_path):
    record = Record.open("trial", options(tmp_path), {})
    row = record.add({"seed": 0}, {"wall_s": 0.5})
    assert record.is_current(row)
    row["source"] = "0" * 12
    assert not record.is_current(row)
    assert record.done({"seed": 0}) is row
    record.again = True
    assert record.done({"seed": 0}) is None, "--again measures what older code left"
    record.again = False
    row["machine"] = "another, 64 cores"
    assert record.done({"seed": 0}) is None
    record.add({"seed": 0}, {"wall_s": 0.1})
    assert len(record.rows) == 2


def test_tables_line_up(capsys):
    show(
        "trial",
        [{"name": "a", "count": 12345, "share": 0.5, "right": True}, {"name": "bcd", "count": None, "share": 2e4}],
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        "trial",
        "name   count   share  right",
        "----  ------  ------  -----",
        "a     12,345     0.5    yes",
        "bcd        -  20,000      -",
    ]


def test_the_data_are_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    assert shared_data() == tmp_path


@pytest.mark.parametrize("quick", [True, False])
def test_smoke_runs_keep_apart_from_real_ones(quick):
    record = Record.open("trial", argparse.Namespace(quick=quick, again=False, threads=1, results=None), {})
    assert (record.path.parent.name == "quick") is quick
