"""Refinement of what the microscope did: the defocus of particles or groups, as a stage, and its use by later ones.

Stages hold the optics of the table. What a run finds out about them stands in its state, and later stages see the
images with both: ``defocus`` (Å, added to both values) and ``contrast`` (a factor on the transfer function).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from hoarfrost.fourier.band import Band
from hoarfrost.optimise.loop import OptionalStage, Stage, State
from hoarfrost.poses.defocus import DefocusChange, DefocusRefinement
from hoarfrost.reconstruct.backprojection import images_at_once
from hoarfrost.reconstruct.half_map_stage import IMAGES_A_STEP, HalfMapStage, chunk
from hoarfrost.types import Optics

FOUND = ("defocus", "defocus.deviation", "contrast")
"""What a state may say about the optics."""

GROUP_SAMPLE = 1000
"""Particles of a group, in each half, by which its defocus is judged: they bring it to within a few Å."""


def defocus_of(state: State) -> DefocusChange | None:
    """What a state says about the defocus."""
    return DefocusChange(state["defocus"], state["defocus.deviation"]) if "defocus" in state else None


def refined_optics(optics: Optics, state: State) -> Optics:
    """The optics of a table with what a state says about them."""
    defocus = defocus_of(state)
    if defocus is not None:
        optics = defocus.applied(optics)
    if "contrast" in state:
        factor = state["contrast"].to(optics.scale)
        # Images that were multiplied by C are modelled by its square.
        factor = torch.where(optics.premultiplied, factor.sqrt(), factor)
        optics = optics.replace(scale=optics.scale * factor)
    return optics


@dataclass(frozen=True)
class WithOptics:
    """A stage, made for the optics that the state has come to."""

    optics: Optics
    make: Callable[[Optics], Stage]
    _made: dict[tuple[int, ...], tuple[State, Stage]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @cached_property
    def _plain(self) -> Stage:
        return self.make(self.optics)

    @property
    def name(self) -> str:
        """Unique name of the stage."""
        return self._plain.name

    @property
    def title(self) -> str:
        """What people read."""
        return self._plain.title

    @property
    def steps(self) -> int:
        """Steps of the stage."""
        return self._plain.steps

    def needed(self, state: State) -> bool:
        """Whether the stage is to be run."""
        return not isinstance(self._plain, OptionalStage) or self._plain.needed(state)

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """One step of the stage, which sees the changes as part of the optics only."""
        found = {name: state[name] for name in FOUND if name in state}
        after, values = self._of(found).run({name: state[name] for name in state if name not in found}, step)
        return found | after, values

    def _of(self, found: State) -> Stage:
        """The stage for these changes; the same one as long as they are the same, so that it keeps what it keeps."""
        key = tuple(id(value) for value in found.values())
        if key not in self._made:
            self._made.clear()
            # The changes are kept with it: an id is unique among living objects only.
            self._made[key] = found, self.make(refined_optics(self.optics, found))
        return self._made[key][1]


@dataclass(frozen=True)
class RefineDefocus:
    """The defocus of every particle, or of every optics group, at the present poses; each half against its own map."""

    maps: HalfMapStage
    unit: Literal["group", "particle"]
    name: str = "defocus"
    title: str = "Refining the defocus"

    @property
    def steps(self) -> int:
        """One step for the maps; then one for each half, or chunks of particles."""
        return 3 if self.unit == "group" else 1 - (-len(self.maps.stack) // IMAGES_A_STEP)

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Make the half-maps, or refine against them; ``defocus`` in the state is what is to be added, Å."""
        count = len(self.maps.stack)
        if step == 0:
            nothing = torch.zeros(count, dtype=torch.float64)
            state = self.maps.prepare(state, self.name)
            return state | {"defocus": nothing, "defocus.deviation": nothing}, {
                "band": float(state[f"{self.name}.limit"])
            }
        state = dict(state)
        if self.unit == "particle":
            parts = self.maps.halves(state, chunk(step - 1, count))
            rows = torch.cat([self._of_particles(state, half, mine) for half, mine in parts])
        else:
            rows = self._of_groups(state, step)
        if step + 1 == self.steps:
            state = self.maps.forget(state, self.name)
        return state, {"moved by, Å": float(state["defocus"][rows].abs().median())}

    def _of_particles(self, state: State, half: int, rows: Int[Tensor, "b"]) -> Int[Tensor, "b"]:
        for part in rows.split(images_at_once(Band(self.maps.stack.band.box, int(state[f"{self.name}.limit"])))):
            found = self._refine(state, half, part)
            self._put(state, part, found.change, found.deviation)
        return rows

    def _of_groups(self, state: State, half: int) -> Int[Tensor, "b"]:
        rows = (state["half"] == half).nonzero()[:, 0]
        group = self.maps.stack.optics.group[rows]
        for number in group.unique():
            mine = rows[group == number]
            sample = mine[torch.linspace(0, len(mine) - 1, min(GROUP_SAMPLE, len(mine))).round().long()]
            found = self._refine(state, half, sample)
            self._put(state, mine, found.change[:1].expand(len(mine)), found.deviation[:1].expand(len(mine)))
        return rows

    def _refine(self, state: State, half: int, rows: Int[Tensor, "b"]) -> DefocusChange:
        stack = self.maps.stack
        band = Band(stack.band.box, int(state[f"{self.name}.limit"]))
        density = self.maps.pair(state, self.name).density(half, band.limit, stack.device)
        method = DefocusRefinement(state[f"{self.name}.weight"], stack.noise, per_group=self.unit == "group")
        images = stack.images(rows, band)
        return method.refine(images, density, stack.optics[rows], state["rotations"][rows], state["shifts"][rows])

    def _put(self, state: State, rows: Int[Tensor, "b"], change: Tensor, deviation: Tensor) -> None:
        for key, value in (("defocus", change), ("defocus.deviation", deviation)):
            state[key] = state[key].index_copy(0, rows, value.to(state[key]))
