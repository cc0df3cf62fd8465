"""Signals: the first sets a flag, the second ends at once, and handlers come back."""

import os
import signal
import threading

import pytest

from hoarfrost.errors import Interrupted
from hoarfrost.runs.interrupt import StopSignals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_asks_to_stop(number: int, code: int) -> None:
    before = signal.getsignal(number)
    said: list[str] = []
    with StopSignals(said.append) as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        error = stop.stopped("bye")
    assert isinstance(error, Interrupted)
    assert error.exit_code == code
    assert str(error) == "bye"
    assert len(said) == 1
    assert "stopping after this step" in said[0]
    assert signal.getsignal(number) is before


def test_the_second_signal_ends_at_once() -> None:
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.stopped("").exit_code == 143


def test_outside_the_main_thread_nothing_is_caught() -> None:
    asked: list[bool] = []

    def work() -> None:
        with StopSignals() as stop:
            asked.append(stop())

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert asked == [False]
    assert signal.getsignal(signal.SIGINT) is before
