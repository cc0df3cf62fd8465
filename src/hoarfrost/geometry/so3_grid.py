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

    def nearest(self, rotations: Float[Tensor, "*n 3 3"]) -> Int[Tensor, "*n"]:
        """The orientation in whose cell each rotation lies: its pixel of the sphere, and the nearest in-plane angle."""
        rotations = rotations.double().cpu()
        x, y, z = rotations[..., 2, :].unbind(-1)
        tilt, rot = torch.atan2(torch.hypot(x, y), z), torch.atan2(y, x) % (2 * math.pi)
        pixel = np.asarray(healpix.ang2pix(2**self.order, tilt.numpy(), rot.numpy(), nest=True))
        direction = torch.from_numpy(pixel).long()
        psi = _in_plane_angle(rotations @ self._frames[direction].mT)
        return direction * self.in_plane_count + (psi / self.spacing - 0.5).round().long() % self.in_plane_count

    def neighbours(self, indices: Int[Tensor, "*n"]) -> Int[Tensor, "*n 27"]:
        """Each orientation (first) and the 26 around it: the nine nearest directions at three in-plane angles each."""
        direction, psi = indices // self.in_plane_count, indices % self.in_plane_count
        wanted, place = direction.unique(return_inverse=True)
        views = self._frames[:, 2]
        near = torch.cat([(views[part] @ views.T).topk(9).indices for part in wanted.split(1024)])
        turn = _in_plane_angle(self._frames[wanted][:, None] @ self._frames[near].mT)
        turns = (turn / self.spacing).round().long()[place]
        angles = (psi[..., None] + turns)[..., None] + torch.tensor([0, -1, 1])
        return (near[place][..., None] * self.in_plane_count + angles % self.in_plane_count).flatten(-2)

    def children(self, indices: Int[Tensor, "*n"]) -> Int[Tensor, "*n 8"]:
        """The eight orientations of the next order that share each orientation's cell.

        They are its four nested directions at the two in-plane angles next to its own. Angles are compared after the
        shortest turn from one direction to the other: near the poles ``rot`` changes much and the image little.
        """
        direction, psi = indices // self.in_plane_count, indices % self.in_plane_count
        finer = OrientationGrid(self.order + 1)
        directions = 4 * direction[..., None] + torch.arange(4)
        angles = 2 * psi[..., None] + self._turns_to_children[direction]
        angles = (angles[..., None] + torch.arange(2)) % finer.in_plane_count
        return (directions[..., None] * finer.in_plane_count + angles).flatten(-2)

    def parents(self, indices: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
        """The orientation of the order before whose cell holds each orientation."""
        coarser = OrientationGrid(self.order - 1)
        direction, psi = indices // self.in_plane_count, indices % self.in_plane_count
        psi = (psi - coarser._turns_to_children.flatten()[direction]) % self.in_plane_count
        return (direction // 4) * coarser.in_plane_count + psi // 2

    @cached_property
    def _frames(self) -> Float[Tensor, "d 3 3"]:
        """Rotations of the viewing directions at psi = 0, float64."""
        return euler_to_matrix(torch.cat([self.directions, torch.zeros(self.direction_count, 1)], dim=-1))

    @cached_property
    def _turns_to_children(self) -> Int[Tensor, "d 4"]:
        """In-plane steps of the next order by which a child's frame is turned against its parent's."""
        finer = OrientationGrid(self.order + 1)
        turn = _in_plane_angle(self._frames[:, None] @ finer._frames.unflatten(0, (-1, 4)).mT)
        return (turn / finer.spacing).round().long()


def _in_plane_angle(rotations: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n"]:
    """The angle of the turn of the image plane that is nearest to a rotation."""
    return torch.atan2(rotations[..., 0, 1] - rotations[..., 1, 0], rotations[..., 0, 0] + rotations[..., 1, 1])
