"""The loop: order, what it says, where it saves, and that a run killed at any moment ends as if it had not been."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from hoarfrost.errors import InputError, Interrupted
from hoarfrost.optimise.events import Event, Message, StageDone, StageStarted, StepDone, listeners
from hoarfrost.optimise.loop import State, run_stages


@dataclass(frozen=True)
class Noisy:
    """A stage that mixes the state with numbers drawn from (name, step)."""

    name: str
    steps: int
    title: str = "mixing"

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        generator = torch.Generator().manual_seed(hash((self.steps, step)) % 2**31)
        moved = 0.9 * state["x"] + torch.randn(3, generator=generator, dtype=torch.float64)
        return state | {"x": moved, self.name: moved.sum()}, {"sum": float(moved.sum())}


@dataclass
class Memory:
    """A store that keeps every save."""

    saved: list[tuple[State, str, int]] = field(default_factory=list)

    def save(self, state: State, stage: str, step: int) -> None:
        self.saved.append((dict(state), stage, step))

    def load(self) -> tuple[State, str, int] | None:
        return self.saved[-1] if self.saved else None


STAGES = [Noisy("a", 3), Noisy("b", 0), Noisy("c", 4)]
START: State = {"x": torch.zeros(3, dtype=torch.float64)}


def test_stages_run_in_order_and_are_heard() -> None:
    events: list[Event] = []
    run_stages(STAGES, START, listener=events.append)
    assert [e.stage for e in events if isinstance(e, StageStarted)] == ["a", "b", "c"]
    assert [(e.stage, e.step, e.steps) for e in events if isinstance(e, StepDone)] == [
        *(("a", i, 3) for i in (1, 2, 3)),
        *(("c", i, 4) for i in (1, 2, 3, 4)),
    ]
    done = [e for e in events if isinstance(e, StageDone)]
    steps_of_a = sum(e.seconds for e in events if isinstance(e, StepDone) and e.stage == "a")
    assert [e.stage for e in done] == ["a", "b", "c"]
    assert done[0].seconds >= steps_of_a > 0


@pytest.mark.parametrize("stop_after", range(8))
def test_a_run_that_stopped_anywhere_ends_as_one_that_did_not(stop_after: int) -> None:
    uninterrupted = run_stages(STAGES, START)
    store, done = Memory(), 0

    def count(event: Event) -> None:
        nonlocal done
        done += isinstance(event, StepDone)

    if stop_after < 7:
        with pytest.raises(Interrupted):
            run_stages(STAGES, START, store=store, listener=count, should_stop=lambda: done >= stop_after)
        assert done == stop_after
    else:
        run_stages(STAGES, START, store=store, listener=count, should_stop=lambda: done >= stop_after)
    resumed = run_stages(STAGES, {"x": torch.full((3,), torch.nan)}, store=store, listener=count)
    assert done == 7, "no step is done twice"
    assert resumed.keys() == uninterrupted.keys()
    assert all(torch.equal(resumed[name], uninterrupted[name]) for name in resumed)


def test_complete_stages_are_passed_over_without_a_word() -> None:
    store = Memory([(START, "a", 3)])
    events: list[Event] = []
    run_stages(STAGES, START, store=store, listener=events.append)
    assert {e.stage for e in events if isinstance(e, StageStarted)} == {"b", "c"}


def test_saves_come_at_the_ends_of_stages_and_no_oftener_than_asked() -> None:
    seldom, often = Memory(), Memory()
    run_stages(STAGES, START, store=seldom, save_every_s=1000.0)
    assert [(stage, step) for _, stage, step in seldom.saved] == [("a", 3), ("b", 0), ("c", 4)]
    run_stages(STAGES, START, store=often, save_every_s=0.0)
    assert [(stage, step) for _, stage, step in often.saved] == [
        ("a", 1), ("a", 2), ("a", 3), ("b", 0), ("c", 1), ("c", 2), ("c", 3), ("c", 4),
    ]  # fmt: skip


def test_a_checkpoint_of_another_method_is_refused() -> None:
    with pytest.raises(InputError, match=r"stands in stage 'gone', which this run does not have.*--force"):
        run_stages(STAGES, START, store=Memory([(START, "gone", 1)]))


def test_stages_need_different_names() -> None:
    with pytest.raises(ValueError, match="different names"):
        run_stages([Noisy("a", 1), Noisy("a", 2)], START)


def test_several_listeners_hear_in_order() -> None:
    heard: list[tuple[int, Event]] = []
    message = Message("one", "warning")
    listeners(lambda e: heard.append((1, e)), lambda e: heard.append((2, e)))(message)
    assert heard == [(1, message), (2, message)]


KILLED_AT_RANDOM = """
import os, random, signal, sys, time
from dataclasses import dataclass
from pathlib import Path
import torch
from hoarfrost.io.checkpoint import Checkpoint
from hoarfrost.optimise.loop import run_stages

torch.set_num_threads(1)

@dataclass(frozen=True)
class Noisy:
    name: str
    steps: int
    title: str = ""
    def run(self, state, step):
        generator = torch.Generator().manual_seed(1000 * self.steps + step)
        time.sleep(0.002)
        moved = 0.9 * state["x"] + torch.randn(100_000, generator=generator)
        return state | {"x": moved, self.name: moved[:5] * 1j}, {}

stages = [Noisy("a", 12), Noisy("b", 15), Noisy("c", 9)]
start = {"x": torch.zeros(100_000)}
expected = run_stages(stages, start)
folder, kills = Path(sys.argv[1]), 0
random.seed(int(sys.argv[2]))
while True:
    child = os.fork()
    if child == 0:
        run_stages(stages, start, store=Checkpoint(folder, "same"), save_every_s=0.0)
        os._exit(0)
    time.sleep(random.uniform(0.0, 0.06))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        break
    kills += 1
state, stage, step = Checkpoint(folder, "same").load()
assert (stage, step) == ("c", 9), (stage, step)
assert state.keys() == expected.keys()
assert all(torch.equal(state[name], expected[name]) for name in expected)
print(kills)
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_a_process_killed_at_random_moments_ends_as_one_that_lived(tmp_path: Path, seed: int) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED_AT_RANDOM)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "run"), str(seed)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3, "the processes were killed several times on the way"
