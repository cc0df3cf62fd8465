"""One frame for the two halves of the data.

Each half is refined against its own map, and nothing but the few shells that they share keeps the maps from turning
away from each other, by up to a degree. That would blur the map of all particles and belittle the agreement of the
halves. A rigid motion of one half undoes it: six numbers for thousands of images, which cannot make noise agree.

The halves of a pseudo-symmetric particle may settle on different ones of its orientations, which look alike in the low
shells that they began with. Such maps lie far apart, and agree in the further shells only once one is turned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.analysis.alignment import GlobalAlignment
from hoarfrost.analysis.fsc import fourier_shell_correlation
from hoarfrost.analysis.interpolation import move_volume
from hoarfrost.analysis.map_alignment import align_maps
from hoarfrost.data.dataset import BandStack
from hoarfrost.fourier.transforms import resample_centred
from hoarfrost.geometry.rotations import matrix_to_rotation_vector, rotation_vector_to_matrix
from hoarfrost.optimise.loop import State
from hoarfrost.physics.masks import soft_sphere
from hoarfrost.reconstruct.backprojection import BackProjection
from hoarfrost.reconstruct.half_maps import half_sums, inside, small_box
from hoarfrost.types import Volume

FURTHEST = 0.26
"""Radians (15 degrees). Maps that lie further apart than this do not differ by a drift."""

SHELLS = 16
"""Shells in which the maps are laid over each other: six numbers need no more, and these hold most of the signal."""


TOGETHER = 0.98
"""Mean correlation in these shells from which on maps lie where they should, whatever symmetry they seem to have."""


@dataclass(frozen=True)
class Motion:
    """A rigid motion ``x -> rotation @ x + shift`` of the object; the shift in Å."""

    rotation: Float[Tensor, "3 3"]
    shift: Float[Tensor, "3"]

    @property
    def angle(self) -> float:
        """Radians that it turns by."""
        return float(torch.linalg.vector_norm(matrix_to_rotation_vector(self.rotation)))

    def kept_by(self, symmetry: str) -> Motion:
        """The part of a small motion that leaves the axes of a point group where they stand."""
        name = symmetry.upper()
        if name == "C1":
            return self
        # About and along a single axis a map is free; two axes fix it altogether.
        along = torch.tensor([0.0, 0.0, 1.0 if name.startswith("C") else 0.0], dtype=self.rotation.dtype)
        turn = matrix_to_rotation_vector(self.rotation) * along
        return Motion(rotation_vector_to_matrix(turn), self.shift * along.to(self.shift))

    def apply(
        self, rotations: Float[Tensor, "n 3 3"], shifts: Float[Tensor, "n 2"], pixel_size: float
    ) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 2"]]:
        """Poses of the moved object that give the same images; shifts in pixels."""
        turn = self.rotation.to(rotations)
        origin = -(turn.mT @ self.shift.to(rotations)) / pixel_size
        return rotations @ turn.mT, shifts + (rotations @ origin)[:, :2].to(shifts)


def motion_between(
    first: BackProjection,
    second: BackProjection,
    *,
    extent: float,
    radius: float,
    symmetry: str,
    anywhere: bool = False,
) -> Motion | None:
    """What lays the map of the second half over that of the first; ``extent`` (the box) and ``radius`` in Å.

    None where they lie already together, or do not agree better for it. Maps that lie apart by more than a drift are
    laid over each other only if they may lie ``anywhere``; those with a symmetry never, as their axes stand.
    """
    voxel_size, reach = extent / first.grid.box, min(first.grid.limit, SHELLS)
    mask = soft_sphere(first.grid.box, radius / voxel_size, 3.0).to(first.sums)
    box = small_box(first.grid.box, reach)
    maps = [
        Volume(
            resample_centred(inside(half.volume(0.1 * half.weight_per_shell), mask), box, (0, 1, 2)).cpu(), extent / box
        )
        for half in (first.folded(), second.folded())
    ]
    shells = slice(1, reach + 1)

    def agreement(motion: Motion | None) -> float:
        laid = maps[1] if motion is None else move_volume(maps[1], motion.rotation, motion.shift)
        return float(fourier_shell_correlation(maps[0], laid)[shells].mean())

    found = align_maps(maps[1], maps[0], hands=False, start=GlobalAlignment(_a_little_off(), False, 1.0))
    near = Motion(found.rotation.double(), found.shift.double()).kept_by(symmetry)
    drift = max(near.angle * radius, float(torch.linalg.vector_norm(near.shift)))
    # A fiftieth of a voxel at the surface is nothing.
    candidates: list[Motion | None] = [None] if near.angle > FURTHEST or drift < 0.02 * voxel_size else [None, near]
    best = max(candidates, key=agreement)
    if anywhere and symmetry.upper() == "C1" and agreement(best) < TOGETHER:
        found = align_maps(maps[1], maps[0], hands=False)
        best = max(best, Motion(found.rotation.double(), found.shift.double()), key=agreement)
    return best


def _a_little_off() -> Float[Tensor, "3 3"]:
    """A degree about a general axis, to begin with.

    Maps that are not turned at all are read at the grid's nodes, without the loss that any interpolation brings, so that
    no small turn would look better.
    """
    return rotation_vector_to_matrix(torch.tensor([0.011, -0.007, 0.013], dtype=torch.float64))


def moved(state: State, motion: Motion, pixel_size: float) -> State:
    """The state with the particles of the second half moved."""
    rows = (state["half"] == 2).nonzero()[:, 0]
    rotations, shifts = motion.apply(state["rotations"][rows], state["shifts"][rows], pixel_size)
    return state | {
        "rotations": state["rotations"].index_copy(0, rows, rotations),
        "shifts": state["shifts"].index_copy(0, rows, shifts),
    }


@dataclass(frozen=True)
class JoinFrames:
    """Lay the second half over the first, before all images are added up."""

    stack: BandStack
    symmetry: str
    name: str = "join"
    title: str = "Laying the halves over each other"
    steps: int = 1

    def run(self, state: State, step: int) -> tuple[State, Mapping[str, float]]:
        """Make the maps of the present poses, and move the second half."""
        limit, extent = min(SHELLS, self.stack.band.limit), self.stack.band.box * self.stack.pixel_size
        sums = half_sums(self.stack, state["rotations"], state["shifts"], state["half"], limit, self.symmetry)
        motion = motion_between(*sums, extent=extent, radius=float(state["radius"]), symmetry=self.symmetry)
        if motion is None:
            return state, {"degrees": 0.0}
        return moved(state, motion, self.stack.pixel_size), {
            "degrees": float(torch.rad2deg(torch.tensor(motion.angle)))
        }
