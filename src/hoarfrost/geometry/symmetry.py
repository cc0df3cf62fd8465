"""Point groups in RELION's orientation, and the part of the sphere of views that they leave distinct.

A density with the symmetry ``g`` has ``V(g x) = V(x)``, so that the poses ``R`` and ``R g`` give the same image.
Viewing directions are third rows of ``R``: equivalent ones are ``g^T d``.

| name | axes |
|---|---|
| C1 ... C99 | n-fold on z |
| D1 ... D99 | n-fold on z, twofold on x |
| T | threefold on z, twofold on (0, sqrt 2, 1) |
| O | fourfold on x, y and z |
| I, I2 | twofold on x, y and z; fivefold on (1, 0, phi), phi the golden ratio |
| I1 | I2 turned by 90 degrees: fivefold on (phi, 0, -1) |
| I3 | fivefold on z and on (-2, 0, 1) |
| I4 | fivefold on z and on (2, 0, 1) |
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hoarfrost.errors import InputError
from hoarfrost.geometry.rotations import geodesic_distance, rotation_vector_to_matrix

GOLDEN = (1 + math.sqrt(5)) / 2
TIE = 1e-9
"""Directions nearer to a boundary of the asymmetric unit than this belong to both sides."""

_Axis = tuple[int, tuple[float, float, float]]
_POLYHEDRAL: dict[str, tuple[_Axis, ...]] = {
    "T": ((3, (0.0, 0.0, 1.0)), (2, (0.0, math.sqrt(2), 1.0))),
    "O": ((3, (1.0, 1.0, 1.0)), (4, (0.0, 0.0, 1.0))),
    "I": ((2, (0.0, 0.0, 1.0)), (5, (1.0, 0.0, GOLDEN))),
    "I1": ((2, (1.0, 0.0, 0.0)), (5, (GOLDEN, 0.0, -1.0))),
    "I2": ((2, (0.0, 0.0, 1.0)), (5, (1.0, 0.0, GOLDEN))),
    "I3": ((2, (-1.0, 0.0, GOLDEN)), (5, (0.0, 0.0, 1.0))),
    "I4": ((2, (1.0, 0.0, GOLDEN)), (5, (0.0, 0.0, 1.0))),
}


def point_group(name: str) -> Float[Tensor, "g 3 3"]:
    """The rotations of a point group, float64, the identity first.

    Raises
    ------
    InputError
        A name that is not in the module's table.
    """
    return _closure(_axes(name)).clone()


def generators(name: str) -> Float[Tensor, "n 3 3"]:
    """The one or two rotations of which all others of a point group are products, float64.

    Raises
    ------
    InputError
        A name that is not in the table of point groups.
    """
    return _generators(_axes(name))


def least_turn(name: str) -> float:
    """The smallest angle by which a rotation of the group turns, radians; a full turn where there is none."""
    turned = point_group(name)[1:].diagonal(dim1=-2, dim2=-1).sum(-1)
    return 2 * math.pi if len(turned) == 0 else float(((turned.max() - 1) / 2).clamp(-1, 1).acos())


def in_asymmetric_unit(directions: Float[Tensor, "*n 3"], name: str) -> Bool[Tensor, "*n"]:
    """Whether viewing directions lie in the asymmetric unit, which holds one of each set of equivalent ones.

    The unit is what lies nearer to one general direction than to its images under the group, a share ``1 / g`` of
    the sphere; the boundary belongs to it.
    """
    nearness = directions @ _seeds(name).to(directions).mT
    return nearness[..., 0] >= nearness.amax(-1) - TIE


def to_asymmetric_unit(rotations: Float[Tensor, "*n 3 3"], name: str) -> Float[Tensor, "*n 3 3"]:
    """The equivalent poses ``R g`` whose viewing directions lie in the asymmetric unit."""
    nearest = (rotations[..., 2, :] @ _seeds(name).to(rotations).mT).argmax(-1)
    return rotations @ point_group(name).to(rotations)[nearest]


def symmetric_distance(
    first: Float[Tensor, "*n 3 3"], second: Float[Tensor, "*n 3 3"], name: str
) -> Float[Tensor, "*n"]:
    """Smallest angle in radians between ``first`` and any of the poses equivalent to ``second``."""
    operators = point_group(name).to(second)
    overlap = torch.einsum("...ij,...ik,gkj->...g", first, second, operators)
    return geodesic_distance(first, second @ operators[overlap.argmax(-1)])


@lru_cache(maxsize=32)
def _axes(name: str) -> tuple[_Axis, ...]:
    upper = name.upper()
    if upper in _POLYHEDRAL:
        return _POLYHEDRAL[upper]
    found = re.fullmatch(r"([CD])([1-9]\d?)", upper)
    if found is None:
        raise InputError(
            f"symmetry {name!r}: no such point group; expected C1 to C99, D1 to D99, T, O, I (= I2), I1, I2, I3 or I4"
        )
    principal: _Axis = (int(found[2]), (0.0, 0.0, 1.0))
    return (principal,) if found[1] == "C" else (principal, (2, (1.0, 0.0, 0.0)))


@lru_cache(maxsize=32)
def _closure(axes: tuple[_Axis, ...]) -> Float[Tensor, "g 3 3"]:
    """All products of the turns about these axes."""
    group, first_turns = _turns(*axes[0]), _generators(axes)
    while True:
        grown = torch.cat([group, (group[:, None] @ first_turns).flatten(0, 1)])
        same = torch.cdist(grown.flatten(1), grown.flatten(1)) < 1e-6
        first_of_its_kind = same.int().argmax(-1) == torch.arange(len(grown))
        if int(first_of_its_kind.sum()) == len(group):
            return group
        group = grown[first_of_its_kind]


def _generators(axes: tuple[_Axis, ...]) -> Float[Tensor, "n 3 3"]:
    return torch.stack([_turns(*axis)[1 % axis[0]] for axis in axes])


def _turns(fold: int, axis: tuple[float, float, float]) -> Float[Tensor, "{fold} 3 3"]:
    unit = torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=0)
    angles = 2 * math.pi / fold * torch.arange(fold, dtype=torch.float64)
    return rotation_vector_to_matrix(angles[:, None] * unit)


@lru_cache(maxsize=32)
def _seeds(name: str) -> Float[Tensor, "g 3"]:
    """A direction as far as can be from its images under the group, and those images ``g v``, in the group's order."""
    group = point_group(name)
    candidates = _spiral(1000)
    images = torch.einsum("gij,cj->cgi", group, candidates)
    closest = torch.einsum("cgi,ci->cg", images, candidates)[:, 1:]
    return images[closest.amax(-1).argmin() if len(group) > 1 else 0]


def _spiral(count: int) -> Float[Tensor, "{count} 3"]:
    """Directions on a Fibonacci spiral: evenly spread, and on no symmetry axis or plane."""
    index = torch.arange(count, dtype=torch.float64) + 0.5
    z = 1 - 2 * index / count
    angle = 2 * math.pi * GOLDEN * index
    return torch.stack([(1 - z * z).sqrt() * angle.cos(), (1 - z * z).sqrt() * angle.sin(), z], dim=-1)
