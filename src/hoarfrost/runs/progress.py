"""What a run says while it runs: a live line on a terminal, plain lines elsewhere, and two files for afterwards."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from hoarfrost.errors import InputError
from hoarfrost.optimise.events import Event, Listener, Message, StageDone, StageStarted, StepDone, listeners

EVENTS_NAME = "events.jsonl"
LOG_NAME = "log.txt"

_QUIET_S = 10.0
"""Seconds between two plain lines of one stage."""

_FOR_RECORDS = {"Tflop"}
"""Figures of steps that are kept in the events but tell a reader of the moment nothing."""

_KINDS = {StageStarted: "stage started", StepDone: "step done", StageDone: "stage done", Message: "message"}


class PlainLines:
    """Lines with the time of day: stages, and in long ones a line every ten seconds with the time left."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._titles: dict[str, str] = {}
        self._figures = ""
        self._began = self._spoken = 0.0
        self._done = 0

    def __call__(self, event: Event) -> None:
        """Write the line of an event, if it has one now."""
        match event:
            case StageStarted():
                self._titles[event.stage] = event.title
                self._began = self._spoken = time.monotonic()
                self._done, self._figures = 0, ""
                self._line(event.title)
            case StepDone():
                self._done += 1
                self._figures = figures(event.values)
                if time.monotonic() - self._spoken >= _QUIET_S and event.step < event.steps:
                    self._spoken = time.monotonic()
                    left = (self._spoken - self._began) / self._done * (event.steps - event.step)
                    parts = [f"  {event.step} of {event.steps}", f"{duration(left)} left", self._figures]
                    self._line(", ".join(part for part in parts if part))
            case StageDone():
                title = self._titles.get(event.stage, event.stage)
                self._line(f"{title}: done in {duration(event.seconds)}{_bracketed(self._figures)}")
            case Message():
                self._line(f"warning: {event.text}" if event.level == "warning" else event.text)

    def _line(self, text: str) -> None:
        self._write(f"{time.strftime('%H:%M:%S')}  {text}\n")


class LiveLine:
    """One line that moves: bar, steps, time left, figures. Stages that are done stay above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("[dim]{task.fields[figures]}"),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, figures="", visible=False)
        self._title = self._figures = ""

    def __enter__(self) -> LiveLine:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Move the line."""
        match event:
            case StageStarted():
                self._title, self._figures = escape(event.title), ""
                self._progress.reset(self._task, total=event.steps, description=self._title, visible=True, figures="")
            case StepDone():
                self._figures = escape(figures(event.values))
                self._progress.update(self._task, completed=event.step, figures=self._figures)
            case StageDone():
                self._progress.update(self._task, visible=False)
                note = f"{duration(event.seconds)}{_bracketed(self._figures)}"
                self._console.print(f"[green]✓[/] {self._title}  [dim]{note}[/]", highlight=False)
            case Message():
                mark = "[yellow]![/] " if event.level == "warning" else ""
                self._console.print(mark + escape(event.text), highlight=False)


class EventFile:
    """``events.jsonl``: every event as one JSON line with its time, appended at once."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def __call__(self, event: Event) -> None:
        """Append an event."""
        content = {"time": round(time.time(), 3), "event": _KINDS[type(event)]} | asdict(event)
        self._file.write(json.dumps(content) + "\n")
        self._file.flush()


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a run; lines that a killed process left half written are passed over."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


@contextmanager
def show_progress(
    console: Console, log: Path | None = None, events: Path | None = None, *others: Listener
) -> Iterator[Listener]:
    """A listener for the length of a run: the terminal, the files given, and any others.

    Warnings that the package logs meanwhile are heard as messages. Files are appended to.
    """
    with ExitStack() as stack:
        parts: list[Listener] = []
        if console.is_terminal:
            parts.append(stack.enter_context(LiveLine(console)))
        else:
            parts.append(PlainLines(lambda text: console.file.write(text)))
        if log is not None:
            parts.append(PlainLines(_flushing(stack.enter_context(_append(log)))))
        if events is not None:
            parts.append(EventFile(stack.enter_context(_append(events))))
        listener = listeners(*parts, *others)
        stack.enter_context(logged_warnings(lambda text: listener(Message(text, "warning"))))
        yield listener


def figures(values: Mapping[str, float]) -> str:
    """Figures of a step in a few words."""
    return ", ".join(f"{name} {_number(float(value))}" for name, value in values.items() if name not in _FOR_RECORDS)


def duration(seconds: float) -> str:
    """A time span as people say it: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def _bracketed(text: str) -> str:
    return f" ({text})" if text else ""


@contextmanager
def _append(path: Path) -> Iterator[TextIO]:
    """A text file to append to; a last line that a killed process left half written is ended first."""
    try:
        cut = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    with file:
        if cut:
            file.write("\n")
        yield file


def _flushing(file: TextIO) -> Callable[[str], None]:
    def write(text: str) -> None:
        file.write(text)
        file.flush()

    return write


@contextmanager
def logged_warnings(hear: Callable[[str], object]) -> Iterator[None]:
    """Hear the warnings that the package logs, in place of whoever heard them before."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            hear(record.getMessage())

    logger, handler = logging.getLogger("hoarfrost"), Handler(logging.WARNING)
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
