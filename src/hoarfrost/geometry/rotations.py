"""Rotation matrices in the RELION convention, their Euler angles and rotation vectors, and distances between them.

A rotation takes object coordinates to image coordinates (``docs/conventions.md``). Conversions that are the same in
every convention come from ``roma``; only the meaning is ours.
"""

from __future__ import annotations

import math

import roma
import torch
from jaxtyping import Float
from torch import Tensor


def euler_to_matrix(angles: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3 3"]:
    """Rotation matrices of (rot, tilt, psi) in radians: A = Rz(-psi) Ry(-tilt) Rz(-rot), active right-handed factors."""
    return roma.euler_to_rotmat("ZYZ", angles).mT


def matrix_to_euler(rotations: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3"]:
    """Angles (rot, tilt, psi) in radians with tilt in [0, pi]; at the poles, where only a sum is defined, any split.

    Rot comes from the third row, which loses digits next to the poles; psi is then taken relative to that very rot,
    so that the three angles together give the matrix back to rounding everywhere.
    """
    third = rotations[..., 2, :]
    rot = torch.atan2(third[..., 1], third[..., 0])
    tilt = torch.atan2(torch.linalg.vector_norm(third[..., :2], dim=-1), third[..., 2])
    node = torch.stack([-rot.sin(), rot.cos(), torch.zeros_like(rot)], dim=-1)
    along = (rotations @ node[..., None])[..., 0]
    return torch.stack([rot, tilt, torch.atan2(along[..., 0], along[..., 1])], dim=-1)


def rotation_vector_to_matrix(vectors: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3 3"]:
    """Rodrigues' matrix of a rotation vector (axis times angle, radians)."""
    return roma.rotvec_to_rotmat(vectors)


def matrix_to_rotation_vector(rotations: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3"]:
    """Rotation vector (axis times angle, radians) of a matrix; angles in [0, pi]."""
    return roma.rotmat_to_rotvec(rotations)


def in_plane(angles: Float[Tensor, "*n"]) -> Float[Tensor, "*n 3 3"]:
    """Turns of the image plane by ``angles``: the matrices Rz(-angle), so that ``in_plane(psi) @ A`` adds psi."""
    cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    rows = [[cosine, sine, zero], [-sine, cosine, zero], [zero, zero, zero + 1]]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def random_rotations(
    count: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "{count} 3 3"]:
    """Rotations drawn uniformly from SO(3): normalised Gaussian quaternions."""
    quaternions = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return roma.unitquat_to_rotmat(torch.nn.functional.normalize(quaternions, dim=-1)).to(dtype)


def geodesic_distance(first: Float[Tensor, "*#n 3 3"], second: Float[Tensor, "*#n 3 3"]) -> Float[Tensor, "..."]:
    """Angle in radians of the rotation that takes one to the other; exact for small angles as well."""
    chord = torch.linalg.matrix_norm(first - second)
    return 2 * torch.asin((chord / math.sqrt(8)).clamp(max=1.0))


def chordal_mean(rotations: Float[Tensor, "n 3 3"], weights: Float[Tensor, "n"] | None = None) -> Float[Tensor, "3 3"]:
    """The rotation nearest to the (weighted) mean matrix in the Frobenius norm."""
    if weights is None:
        weights = torch.ones(len(rotations), dtype=rotations.dtype, device=rotations.device)
    return nearest_rotation((weights[:, None, None] * rotations).sum(0))


def nearest_rotation(matrices: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3 3"]:
    """The proper rotation nearest to a matrix: removes the rounding of a long chain of products."""
    return roma.special_procrustes(matrices)


def mirror(rotations: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3 3"]:
    """Poses of the mirrored map: S R S with S = diag(1, 1, -1)."""
    sign = torch.tensor([1.0, 1.0, -1.0], dtype=rotations.dtype, device=rotations.device)
    return rotations * sign[:, None] * sign
