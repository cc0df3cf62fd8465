"""Rotation matrices in the RELION convention, their Euler angles and rotation vectors, and distances between them.

A rotation takes object coordinates to image coordinates (``docs/conventions.md``). Everything is closed-form,
differentiable where it is smooth, and batched over leading dimensions; the tests hold it against SciPy.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def euler_to_matrix(angles: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3 3"]:
    """Rotation matrices of (rot, tilt, psi) in radians: A = Rz(-psi) Ry(-tilt) Rz(-rot), active right-handed factors."""
    (cr, ct, cp), (sr, st, sp) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    rows = [
        [cp * ct * cr - sp * sr, cp * ct * sr + sp * cr, -cp * st],
        [-sp * ct * cr - cp * sr, -sp * ct * sr + cp * cr, sp * st],
        [st * cr, st * sr, ct],
    ]
    return _matrix(rows)


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
    square = vectors.square().sum(-1)[..., None, None]
    # A floor far below rounding: the root has no derivative at zero, where the matrix depends on the square only.
    angle = square.clamp(min=torch.finfo(vectors.dtype).tiny).sqrt()
    cross = _cross_matrix(vectors)
    sine, versine = torch.sinc(angle / math.pi), 0.5 * torch.sinc(angle / (2 * math.pi)).square()
    return torch.eye(3, dtype=vectors.dtype, device=vectors.device) + sine * cross + versine * (cross @ cross)


def matrix_to_rotation_vector(rotations: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3"]:
    """Rotation vector (axis times angle, radians) of a matrix; angles in [0, pi]."""
    quaternions = matrix_to_quaternion(rotations)
    imaginary, real = quaternions[..., :3], quaternions[..., 3:]
    length = torch.linalg.vector_norm(imaginary, dim=-1, keepdim=True)
    angle = 2 * torch.atan2(length, real)
    small = length < torch.finfo(length.dtype).eps
    return imaginary * torch.where(small, 2.0, angle / torch.where(small, 1.0, length))


def matrix_to_quaternion(rotations: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 4"]:
    """Unit quaternion (x, y, z, w) with w >= 0 of a matrix.

    Its products with each of its own components stand in the matrix; the largest component is divided out (Shepperd,
    J. Guid. Control 1, 223 (1978)), so that no digits are lost at any angle.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in rotations.unbind(-2))
    products = _matrix(
        [
            [1 + xx - yy - zz, xy + yx, xz + zx, zy - yz],
            [xy + yx, 1 - xx + yy - zz, yz + zy, xz - zx],
            [xz + zx, yz + zy, 1 - xx - yy + zz, yx - xy],
            [zy - yz, xz - zx, yx - xy, 1 + xx + yy + zz],
        ]
    )
    largest = products.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = torch.take_along_dim(products, largest[..., None, None], dim=-2)[..., 0, :]
    quaternions = torch.nn.functional.normalize(row, dim=-1)
    return torch.where(quaternions[..., 3:] < 0, -quaternions, quaternions)


def quaternion_to_matrix(quaternions: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 3 3"]:
    """Rotation matrix of a unit quaternion (x, y, z, w)."""
    x, y, z, w = quaternions.unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return _matrix(rows)


def in_plane(angles: Float[Tensor, "*n"]) -> Float[Tensor, "*n 3 3"]:
    """Turns of the image plane by ``angles``: the matrices Rz(-angle), so that ``in_plane(psi) @ A`` adds psi."""
    cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    return _matrix([[cosine, sine, zero], [-sine, cosine, zero], [zero, zero, zero + 1]])


def random_rotations(
    count: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "{count} 3 3"]:
    """Rotations drawn uniformly from SO(3): normalised Gaussian quaternions."""
    quaternions = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return quaternion_to_matrix(torch.nn.functional.normalize(quaternions, dim=-1)).to(dtype)


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
    left, _, right = torch.linalg.svd(matrices)
    sign = torch.ones_like(matrices[..., 0])
    sign[..., 2] = torch.linalg.det(left @ right).sign()
    return (left * sign[..., None, :]) @ right


def mirror(rotations: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3 3"]:
    """Poses of the mirrored map: S R S with S = diag(1, 1, -1)."""
    sign = torch.tensor([1.0, 1.0, -1.0], dtype=rotations.dtype, device=rotations.device)
    return rotations * sign[:, None] * sign


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _cross_matrix(vectors: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3 3"]:
    """The matrix that takes u to the vector product of v and u."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return _matrix([[zero, -z, y], [z, zero, -x], [-y, x, zero]])
