"""Ctrl-C and stop signals: finish the step, save, leave; a second one leaves at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from hoarfrost.errors import Interrupted


class StoppedBySignal(Interrupted):
    """A run that a signal ended, with the exit code that shells expect of it (130 for Ctrl-C, 143 for SIGTERM)."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class StopSignals:
    """While open, the first SIGINT or SIGTERM only sets a flag; calling this object reads the flag.

    The second one raises ``KeyboardInterrupt`` where the program stands. Signals can be caught in the main thread
    only; elsewhere this object never asks to stop.

    Parameters
    ----------
    announce : told, once, that the program will stop.
    """

    def __init__(self, announce: Callable[[str], None] = lambda text: None) -> None:
        self.number: int | None = None
        self._announce = announce
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.number is not None

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def stopped(self, message: str) -> StoppedBySignal:
        """The exception that ends the program after a stop."""
        return StoppedBySignal(message, self.number or signal.SIGINT)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            self.number = number
            raise KeyboardInterrupt
        self.number = number
        again = "Ctrl-C again" if number == signal.SIGINT else "a second signal"
        self._announce(f"stopping after this step, with everything saved; {again} stops at once")
