"""Mixtures of Gaussians written down as plainly as possible, in float64, with no thought for speed."""

import math

import torch
from torch import Tensor


def covariance_matrix(covariances: Tensor) -> Tensor:
    """(n, 3, 3) of six numbers xx, yy, zz, xy, xz, yz, or of one variance."""
    if covariances.ndim == 1:
        return covariances[:, None, None] * torch.eye(3, dtype=covariances.dtype)
    xx, yy, zz, xy, xz, yz = covariances.unbind(-1)
    rows = [torch.stack(row, dim=-1) for row in ([xx, xy, xz], [xy, yy, yz], [xz, yz, zz])]
    return torch.stack(rows, dim=-2)


def window_factor(q: Tensor, window: float) -> Tensor:
    """What the window multiplies a Gaussian with at squared distances ``q`` in deviations."""
    return torch.where(q < window**2, (1 - (q / window**2) ** 16) ** 2, 0)


def mixture_at(
    points: Tensor, centres: Tensor, masses: Tensor, covariances: Tensor, window: float = math.inf
) -> Tensor:
    """The density at points (p, d) of Gaussians with covariance matrices (n, d, d), in d dimensions.

    A window takes some of the mass away; it is given back by the integral over the radius.
    """
    dimensions = points.shape[1]
    offset = points[:, None] - centres
    q = torch.einsum("pni,nij,pnj->pn", offset, covariances.inverse(), offset)
    peak = masses / ((2 * math.pi) ** dimensions * torch.linalg.det(covariances)).sqrt()
    values = (-0.5 * q).exp()
    if window < math.inf:
        values = values * window_factor(q, window) / kept(dimensions, window)
    return (values * peak).sum(-1)


def kept(dimensions: int, window: float) -> float:
    """The share of the mass inside the window."""
    radius = torch.linspace(0, window, 20001, dtype=torch.float64)
    profile = (-0.5 * radius**2).exp() * radius ** (dimensions - 1)
    inside = torch.trapezoid(profile * window_factor(radius**2, window), radius)
    far = torch.linspace(0, 12, 20001, dtype=torch.float64)
    return float(inside / torch.trapezoid((-0.5 * far**2).exp() * far ** (dimensions - 1), far))


def voxel_centres(box: int) -> Tensor:
    """(x, y, z) of all voxels of a cube about its origin, in the order of its memory."""
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.stack([x, y, z], dim=-1).reshape(-1, 3)


def pixel_centres(box: int) -> Tensor:
    """(x, y) of all pixels of a square about its origin, in the order of its memory."""
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)
