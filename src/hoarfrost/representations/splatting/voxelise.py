"""A mixture of Gaussians on a grid of voxels, and back: the density as a map."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.representations.splatting.window import WINDOW, kept_mass
from hoarfrost.representations.splatting.windowed_sum import windowed_sum


def voxelise(
    centres: Float[Tensor, "n 3"],
    masses: Float[Tensor, "n"],
    covariances: Float[Tensor, "n 6"] | Float[Tensor, "n"],
    box: int,
    window: float = WINDOW,
) -> Float[Tensor, "z y x"]:
    """The sum of Gaussians of these masses at the voxels of a cube; differentiable in all of them.

    Values are the density's at the voxel's centre. Their sum is the mass to within ``6 exp(-2 pi^2 s^2)`` for Gaussians
    of ``s`` voxels inside the cube: a grid for ``s < 0.7`` had better be finer. What lies outside the cube is lost.

    Parameters
    ----------
    centres : (x, y, z) in voxels about the origin, voxel ``floor(D/2)``.
    masses : integrals over voxels.
    covariances : xx, yy, zz, xy, xz, yz in squared voxels, or one variance where all Gaussians are isotropic.
    box : side of the cube.
    window : radius in standard deviations beyond which a Gaussian is zero.
    """
    if covariances.ndim == 1:
        precisions, determinant = covariances.reciprocal(), covariances**3
        deviations = covariances.sqrt()[:, None].expand(-1, 3)
    else:
        precisions, determinant = inverse_of_symmetric(covariances)
        deviations = covariances[:, :3].sqrt()
    amplitudes = masses / ((2 * math.pi) ** 1.5 * kept_mass(3, window) * determinant.sqrt())
    return windowed_sum(centres + box // 2, amplitudes, precisions, window * deviations, (box, box, box), window)


def inverse_of_symmetric(numbers: Float[Tensor, "n 6"]) -> tuple[Float[Tensor, "n 6"], Float[Tensor, "n"]]:
    """Inverse and determinant of symmetric positive matrices xx, yy, zz, xy, xz, yz.

    The mean of the diagonal is divided out first, so that the determinant does not underflow.
    """
    scale = numbers[:, :3].mean(-1, keepdim=True)
    xx, yy, zz, xy, xz, yz = (numbers / scale).unbind(-1)
    minors = torch.stack(
        [
            yy * zz - yz * yz,
            xx * zz - xz * xz,
            xx * yy - xy * xy,
            xz * yz - xy * zz,
            xy * yz - xz * yy,
            xy * xz - xx * yz,
        ],
        dim=-1,
    )
    determinant = xx * minors[:, 0] + xy * minors[:, 3] + xz * minors[:, 4]
    return minors / (determinant[:, None] * scale), determinant * scale[:, 0] ** 3
