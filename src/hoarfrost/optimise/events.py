"""What a running method says about itself; whoever listens decides what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias


@dataclass(frozen=True)
class StageStarted:
    """A stage begins, or goes on after an interruption."""

    stage: str
    title: str
    steps: int


@dataclass(frozen=True)
class StepDone:
    """Step ``step`` of ``steps`` is done (counted from 1), with figures worth showing."""

    stage: str
    step: int
    steps: int
    seconds: float
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StageDone:
    """A stage is complete; ``seconds`` are those of this process."""

    stage: str
    seconds: float


@dataclass(frozen=True)
class Message:
    """A line for people."""

    text: str
    level: Literal["info", "warning"] = "info"


Event: TypeAlias = StageStarted | StepDone | StageDone | Message
Listener: TypeAlias = Callable[[Event], None]


def silent(event: Event) -> None:
    """Listen to nothing."""


def listeners(*parts: Listener) -> Listener:
    """One listener that tells all of these, in order."""

    def tell(event: Event) -> None:
        for part in parts:
            part(event)

    return tell
