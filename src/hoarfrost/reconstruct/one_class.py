"""A stage of one map, run for one class of several: the particles of the others belong to neither half."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from hoarfrost.optimise.loop import OptionalStage, Stage, State

PER_PARTICLE = ("rotations", "shifts", "score", "confidence", "junk")
"""What all classes write into, each the rows of its own particles."""

MOSTLY_JUNK = 0.5
"""Probability from which on a particle is left out of the maps."""


@dataclass(frozen=True)
class OneClass:
    """``stage`` with the particles of class ``number`` of ``classes``, without junk once that is known.

    What the stage leaves for itself in the state goes under the name of the class; with a single class, under its own.
    """

    stage: Stage
    number: int = 1
    classes: int = 1

    @property
    def prefix(self) -> str:
        """What stands before the names of this class."""
        return "" if self.classes == 1 else f"class-{self.number}."

    @property
    def name(self) -> str:
        """Unique name of the stage."""
        return self.prefix + self.stage.name

    @property
    def title(self) -> str:
        """What people read."""
        return self.stage.title if self.classes == 1 else f"Class {self.number}: {self.stage.title}"

    @property
    def steps(self) -> int:
        """Steps of the stage."""
        return self.stage.steps

    def needed(self, state: State) -> bool:
        """What the stage says, if it may be left out."""
        return not isinstance(self.stage, OptionalStage) or self.stage.needed(state)

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """One step of the stage on its view of the state."""
        own = {key: value for key, value in state.items() if key.startswith(self.prefix)} if self.prefix else {}
        shared = {key: value for key, value in state.items() if key not in own}
        view = shared | {key.removeprefix(self.prefix): value for key, value in own.items()}
        view["half"] = torch.where(in_class(state, self.number), state["half"], 0)
        after, figures = self.stage.run(view, step)
        kept = dict(shared)
        for key, value in after.items():
            if key == "half" or value is shared.get(key):
                continue
            kept[key if key in PER_PARTICLE else self.prefix + key] = value
        gone = shared.keys() - after.keys()
        return {key: value for key, value in kept.items() if key not in gone}, figures


def in_class(state: State, number: int) -> torch.Tensor:
    """Which particles make up the maps of a class."""
    mine = torch.ones_like(state["half"], dtype=torch.bool) if "class" not in state else state["class"] == number
    return mine if "junk" not in state else mine & (state["junk"] <= MOSTLY_JUNK)
