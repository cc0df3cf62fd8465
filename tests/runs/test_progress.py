"""Progress: what stands on a plain terminal, on a live one, in the log and in the events."""

import io
import json
import logging
import warnings
from pathlib import Path

import pytest
from rich.console import Console

from hoarfrost.optimise.events import Event, Message, StageDone, StageStarted, StepDone
from hoarfrost.runs import progress
from hoarfrost.runs.progress import duration, figures, show_progress

RUN: list[Event] = [
    StageStarted("a", "Reading [images]", 2),
    StepDone("a", 1, 2, 0.5, {"images": 512.0}),
    StepDone("a", 2, 2, 0.5, {"images": 1000.0, "score": 3.14159}),
    StageDone("a", 75.0),
    Message("mind the [gap]", "warning"),
]


def plain() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=False, width=200), out


def test_plain_lines(tmp_path: Path) -> None:
    console, out = plain()
    with show_progress(console, tmp_path / "log.txt", tmp_path / "events.jsonl") as listener:
        for event in RUN:
            listener(event)
    lines = [line[10:] for line in out.getvalue().splitlines()]
    assert lines == [
        "Reading [images]",
        "Reading [images]: done in 1 min 15 s (images 1000, score 3.142)",
        "warning: mind the [gap]",
    ]
    assert (tmp_path / "log.txt").read_text().splitlines() == out.getvalue().splitlines()


def test_long_stages_tell_how_much_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    lines: list[str] = []
    tell = progress.PlainLines(lines.append)
    tell(StageStarted("a", "Work", 20))
    # Resumed at step 5: the time left counts from what this process did.
    for step in range(5, 12):
        clock[0] += 4.0
        tell(StepDone("a", step, 20, 4.0, {"score": 1.0}))
    assert [line[10:].rstrip() for line in lines] == [
        "Work",
        "  7 of 20, 52 s left, score 1",
        "  10 of 20, 40 s left, score 1",
    ]


def test_events_are_json_lines_and_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "stage started"}\n{"event": "cut o')
    with show_progress(plain()[0], events=path) as listener:
        for event in RUN:
            listener(event)
    lines = path.read_text().splitlines()
    assert lines[1] == '{"event": "cut o', "what a killed process left does not swallow the next line"
    read = [json.loads(line) for line in lines[2:]]
    assert list(progress.read_events(path)) == [{"event": "stage started"}, *read]
    assert [event["event"] for event in read] == ["stage started", "step done", "step done", "stage done", "message"]
    assert read[2]["values"] == {"images": 1000.0, "score": 3.14159}
    assert all(event["time"] > 1.7e9 for event in read)


def test_a_live_terminal_keeps_what_is_done() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None)
    with show_progress(console) as listener:
        for event in RUN:
            listener(event)
    text = out.getvalue()
    assert "✓ Reading [images]  1 min 15 s (images 1000, score 3.142)" in text
    assert "! mind the [gap]" in text


def test_warnings_of_the_package_are_heard() -> None:
    heard: list[Event] = []
    logger = logging.getLogger("hoarfrost")
    with show_progress(plain()[0], None, None, heard.append):
        logger.warning("%s: header has no voxel size", "map.mrc")
        logger.info("not this")
    assert heard == [Message("map.mrc: header has no voxel size", "warning")]
    assert logger.handlers == []


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    from hoarfrost.errors import InputError

    with (
        pytest.raises(InputError, match=r"log\.txt: cannot be written"),
        show_progress(plain()[0], tmp_path / "none" / "log.txt"),
    ):
        pass


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (60.2, "1 min 0 s"), (7500.0, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_figures_are_short() -> None:
    with warnings.catch_warnings():
        assert figures({"band": 14.0, "score": -0.000123456, "nan": float("nan"), "Tflop": 0.1}) == (
            "band 14, score -0.0001235, nan nan"
        )
