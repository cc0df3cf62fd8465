"""A nested grid of orientations: HEALPix viewing directions times in-plane angles.

HEALPix (Gorski et al. 2005) divides the sphere into equal areas; with in-plane angles of the same spacing it covers
SO(3) evenly (Yershova et al. 2010). At order ``r`` there are 12 * 4^r directions and 6 * 2^r in-plane angles, about
60 / 2^r degrees apart: 576 orientations at order 1, 4,608 at order 2 (15 degrees), eight times more at each order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import healpix
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.geometry.rotations import euler_to_matrix


@dataclass(frozen=True)
class OrientationGrid:
    """All orientations of one order; an orientation's index is ``direction * in_plane_count + in_plane``."""

    order: int

    @property
    def direction_count(self) -> int:
        """Viewing directions, in HEALPix's nested numbering."""
        return 12 * 4**self.order

    @property
    def in_plane_count(self) -> int:
        """In-plane angles; even, so that every orientation has its half-turn on the grid."""
        return 6 * 2**self.order

    @property
    def spacing(self) -> float:
        """Angle between neighbours in radians."""
        return 2 * math.pi / self.in_plane_count

    def __len__(self) -> int:
        return self.direction_count * self.in_plane_count

    @cached_property
    def directions(self) -> Float[Tensor, "d 2"]:
        """Angles (rot, tilt) of the viewing directions, radians, float64."""
        tilt, rot = healpix.pix2ang(2**self.order, np.arange(self.direction_count), nest=True)
        return torch.stack([torch.from_numpy(rot), torch.from_numpy(tilt)], dim=-1)

    @cached_property
    def in_plane_angles(self) -> Float[Tensor, "p"]:
        """Angles psi = (i + 1/2) spacing, radians, float64; psi and its half-turn are half the grid apart."""
        return (torch.arange(self.in_plane_count, dtype=torch.float64) + 0.5) * self.spacing

    def rotations(self, indices: Int[Tensor, "*n"] | None = None) -> Float[Tensor, "*n 3 3"]:
        """Rotation matrices of these orientations (of all, in order, without ``indices``), float64."""
        if indices is None:
            indices = torch.arange(len(self))
        direction = self.directions[indices // self.in_plane_count]
        psi = self.in_plane_angles[indices % self.in_plane_count]
        return euler_to_matrix(torch.cat([direction, psi[..., None]], dim=-1))

    def children(self, indices: Int[Tensor, "*n"]) -> Int[Tensor, "*n 8"]:
        """The eight orientations of the next order that share each orientation's cell."""
        direction, psi = indices // self.in_plane_count, indices % self.in_plane_count
        finer = OrientationGrid(self.order + 1)
        directions = 4 * direction[..., None] + torch.arange(4).repeat_interleave(2)
        angles = 2 * psi[..., None] + torch.arange(2).repeat(4)
        return directions * finer.in_plane_count + angles

    def parents(self, indices: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
        """The orientation of the order before whose cell holds each orientation."""
        coarser = OrientationGrid(self.order - 1)
        direction, psi = indices // self.in_plane_count, indices % self.in_plane_count
        return (direction // 4) * coarser.in_plane_count + psi // 2
