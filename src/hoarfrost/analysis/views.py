"""Viewing directions on the sphere: how evenly they lie, and which Fourier directions they leave out."""

from __future__ import annotations

import math

import healpix
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.geometry.symmetry import point_group

EMPTY_SHARE = 0.05
"""A direction of Fourier space that gets less than this share of even coverage counts as unseen."""

_VIEWS = 20000

SIDE = 8
_COUNT = 12 * SIDE**2


def sphere_directions() -> Float[Tensor, "d 3"]:
    """768 unit vectors spread evenly, 7 degrees apart: the HEALPix centres of nside 8 in ring order, float64."""
    return torch.stack([torch.as_tensor(axis) for axis in healpix.pix2vec(SIDE, np.arange(_COUNT))], dim=-1)


def view_density(rotations: Float[Tensor, "n 3 3"], width: float = math.radians(7.5)) -> Float[Tensor, "d"]:
    """Density of viewing directions at :func:`sphere_directions`, 1 where coverage is even.

    Counts are smoothed by a von Mises-Fisher kernel of ``width`` radians, about the size of a pixel.
    """
    views = rotations[:, 2].double().cpu()
    pixel = healpix.vec2pix(SIDE, *views.T.numpy())
    counts = torch.bincount(torch.as_tensor(pixel, dtype=torch.int64), minlength=_COUNT).double()
    centres = sphere_directions()
    kernel = torch.exp((centres @ centres.T - 1) / width**2)
    kernel = kernel / kernel.sum(0)
    return (kernel @ counts) * (_COUNT / max(1, len(rotations)))


def unseen_share(
    rotations: Float[Tensor, "n 3 3"], symmetry: str = "C1", half_width: float = math.radians(5.0)
) -> float:
    """Share of directions in Fourier space that hardly any central slice passes within ``half_width`` radians.

    A slice holds the directions perpendicular to its view, so that even views put the share ``sin(half_width)`` of
    all slices next to each direction; one with less than a twentieth of that is a hole in the data. Views all round
    one axis leave no hole; views along one axis alone leave a wide one.
    """
    views = rotations[:: max(1, len(rotations) // _VIEWS), 2].float().cpu()
    views = (views @ point_group(symmetry).to(views)).reshape(-1, 3)
    directions = sphere_directions().float()
    near = torch.zeros(len(directions), dtype=torch.float64)
    for part in views.split(_VIEWS):
        near += ((directions @ part.T).abs() < math.sin(half_width)).sum(1)
    coverage = near / (len(views) * math.sin(half_width))
    return float((coverage < EMPTY_SHARE).double().mean())
