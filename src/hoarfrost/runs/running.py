"""What surrounds the work of a run: progress, logs, stop signals, and a word on how it ended."""

from __future__ import annotations

import shlex
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

from rich.console import Console

from hoarfrost.errors import InputError, Interrupted
from hoarfrost.optimise.events import Listener, Message
from hoarfrost.runs.folder import RunFolder
from hoarfrost.runs.interrupt import StopSignals
from hoarfrost.runs.manifest import InputRecord
from hoarfrost.runs.progress import EVENTS_NAME, LOG_NAME, show_progress


@dataclass(frozen=True)
class Session:
    """How the work of a run speaks, and how it learns that it is to stop."""

    listener: Listener
    should_stop: Callable[[], bool]

    def say(self, text: str) -> None:
        """A line for people."""
        self.listener(Message(text))

    def warn(self, text: str) -> None:
        """A warning; it stays in the record of the run."""
        self.listener(Message(text, "warning"))


def run_in(
    output: Path,
    verb: str,
    config: Mapping[str, Any],
    inputs: Sequence[InputRecord],
    work: Callable[[RunFolder, Session], None],
    *,
    console: Console,
    force: bool = False,
    command: Sequence[str] = (),
) -> RunFolder:
    """Do the work of a run in its folder, unless that was done before.

    Parameters
    ----------
    output : the run folder. The same run, once begun there, goes on; once finished, is left as it is.
    verb, config, inputs : what makes a run what it is (:meth:`hoarfrost.runs.folder.RunFolder.open`); the seed is
        ``config["seed"]``.
    work : does everything, and finishes the folder.
    console : where progress goes.
    force : replace another run that stands in the folder.
    command : the command line, for the record.

    Raises
    ------
    InputError
        If the folder cannot be written, or holds something else.
    StoppedBySignal
        After Ctrl-C or SIGTERM; the same call goes on.
    """
    folder = RunFolder.open(
        output, verb=verb, config=config, inputs=inputs, command=command, seed=config.get("seed"), force=force
    )
    with folder:
        if not folder.finished:
            # What draws the report takes a second to load, which passes beside the work.
            Thread(target=import_module, args=("hoarfrost.runs.report",)).start()
            with running(folder, console, command) as session:
                work(folder, session)
    return folder


@contextmanager
def running(folder: RunFolder, console: Console, command: Sequence[str] = ()) -> Iterator[Session]:
    """Surround the work of a run.

    Progress goes to the console and into ``log.txt`` and ``events.jsonl``, timings and warnings into ``run.json``. A
    first Ctrl-C or SIGTERM makes ``should_stop`` true, a second one ends the work where it stands; either way
    :class:`hoarfrost.runs.interrupt.StoppedBySignal` says how to go on. Any other failure is written into the log.
    """
    log, events = folder.output(LOG_NAME), folder.output(EVENTS_NAME)
    note = _Later()
    with show_progress(console, log, events, folder.listen) as listener, StopSignals(note.say) as stop:
        note.listener = listener
        session = Session(listener, stop)
        if folder.resumed:
            session.say(f"going on with the run in {folder.path}")
        again = f"the same command goes on from there: {shlex.join(command)}" if command else "run it again to go on"
        try:
            yield session
        except Interrupted as error:
            raise stop.stopped(f"{folder.path}: stopped, with everything saved; {again}") from error
        except KeyboardInterrupt as error:
            raise stop.stopped(f"{folder.path}: stopped at once, at the last checkpoint; {again}") from error
        except InputError:
            raise
        except BaseException:
            with log.open("a", encoding="utf-8") as file:
                file.write(traceback.format_exc())
            raise


class _Later:
    """Speaks through a listener that is known only after the signals are caught."""

    def __init__(self) -> None:
        self.listener: Listener | None = None

    def say(self, text: str) -> None:
        if self.listener is not None:
            self.listener(Message(text))
