"""Run the stages of a method one after another, so that it can stop anywhere and go on exactly.

A stage is a deterministic function of (state, step): whatever it draws at random comes from a generator seeded by
numbers that it knows. A run resumed from a saved state therefore repeats an uninterrupted one. The loop knows no
method by name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from torch import Tensor

from hoarfrost.errors import InputError, Interrupted
from hoarfrost.optimise.events import Listener, StageDone, StageStarted, StepDone, silent

State: TypeAlias = dict[str, Tensor]
"""All that a method knows between two steps: flat and named, so that it can be saved as it is."""


@runtime_checkable
class Stage(Protocol):
    """A part of a method, cut into steps of some seconds at most."""

    @property
    def name(self) -> str:
        """Unique in a run, for checkpoints and records."""
        ...

    @property
    def title(self) -> str:
        """What people read."""
        ...

    @property
    def steps(self) -> int:
        """How many steps it takes."""
        ...

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Do step ``step`` (from 0): the next state, and figures to show.

        Tensors of ``state`` may be changed in place only if the step can be repeated on the saved state.
        """
        ...


@runtime_checkable
class OptionalStage(Stage, Protocol):
    """A stage that is passed over unless what came before calls for it."""

    def needed(self, state: State) -> bool:
        """Whether the stage is to be run; the answer must not change while it runs."""
        ...


@runtime_checkable
class CheckpointStore(Protocol):
    """Where states go between steps."""

    def save(self, state: State, stage: str, step: int) -> None:
        """Keep a state that stands before step ``step`` of ``stage``."""
        ...

    def load(self) -> tuple[State, str, int] | None:
        """The last state kept and where it stands; None if there is none."""
        ...


def run_stages(
    stages: Sequence[Stage],
    state: State,
    *,
    store: CheckpointStore | None = None,
    listener: Listener = silent,
    should_stop: Callable[[], bool] = lambda: False,
    save_every_s: float = 20.0,
) -> State:
    """Run ``stages`` from ``state``, or from where ``store`` says that they stood.

    Parameters
    ----------
    stages : the parts of the method; their names differ.
    state : the state before the first step; a saved one takes its place.
    store : keeps the state at the end of every stage, when asked to stop, and between steps.
    listener : hears of every stage and step. Stages that were complete before are passed over without a word.
    should_stop : asked before every step.
    save_every_s : seconds that pass at least between two saves within a stage.

    Returns
    -------
    State
        The state after the last step.

    Raises
    ------
    Interrupted
        If ``should_stop`` said so; the state is saved then.
    InputError
        If the saved state stands in a stage that is not among these.
    """
    _require_unique_names(stages)
    state, first_stage, first_step = _position(stages, state, store)
    saved = time.perf_counter()
    for stage in stages[first_stage:]:
        if isinstance(stage, OptionalStage) and not stage.needed(state):
            continue
        began = time.perf_counter()
        listener(StageStarted(stage.name, stage.title, stage.steps))
        for step in range(first_step, stage.steps):
            if should_stop():
                if store is not None:
                    store.save(state, stage.name, step)
                raise Interrupted(f"stopped before step {step + 1} of {stage.steps} of {stage.name!r}")
            step_began = time.perf_counter()
            state, values = stage.run(state, step)
            now = time.perf_counter()
            if store is not None and step + 1 < stage.steps and now - saved >= save_every_s:
                store.save(state, stage.name, step + 1)
                saved = time.perf_counter()
            listener(StepDone(stage.name, step + 1, stage.steps, now - step_began, values))
        if store is not None:
            store.save(state, stage.name, stage.steps)
            saved = time.perf_counter()
        listener(StageDone(stage.name, time.perf_counter() - began))
        first_step = 0
    return state


def _require_unique_names(stages: Sequence[Stage]) -> None:
    names = [stage.name for stage in stages]
    if len(set(names)) != len(names):
        raise ValueError(f"stages of one run need different names, these are {names}")


def _position(stages: Sequence[Stage], state: State, store: CheckpointStore | None) -> tuple[State, int, int]:
    """The state to go on from, and the stage and step to begin with."""
    kept = None if store is None else store.load()
    if kept is None:
        return state, 0, 0
    state, name, step = kept
    index = next((i for i, stage in enumerate(stages) if stage.name == name), None)
    if index is None:
        raise InputError(
            f"the checkpoint stands in stage {name!r}, which this run does not have: it was made with other settings; "
            "use --force to start again, or another folder"
        )
    if step >= stages[index].steps:
        return state, index + 1, 0
    return state, index, step
