"""Anisotropic Gaussians splatted on images: each covers a window of pixels of its own, which ends smoothly.

The projection of a Gaussian of covariance ``S`` is one of the upper 2x2 block ``S2`` of ``R S R^T``, with the value
``A / (2 pi sqrt|S2|)`` at its centre: the factor depends on the view and must not be left out. Pixel ``floor(D/2)`` is
the origin, as of the transforms.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from hoarfrost.fourier.band import Band
from hoarfrost.representations.splatting.window import WINDOW, kept_mass
from hoarfrost.representations.splatting.windowed_sum import windowed_sum

LEAST_VARIANCE = 1.2
"""In squared pixels of the splatted image: below, what lies beyond its Nyquist frequency shows within half of it."""


def splat(
    positions: Float[Tensor, "b 2 n"],
    masses: Float[Tensor, "n"],
    covariances: Float[Tensor, "b 3 n"],
    box: int,
    window: float = WINDOW,
) -> Float[Tensor, "b y x"]:
    """Images of Gaussians, valued at the middles of pixels; differentiable in positions, masses and covariances.

    Parameters
    ----------
    positions : of the centres in each image, (x, y) in pixels about the origin.
    masses : sums over the image; kept to within ``4 exp(-2 pi^2 s^2)`` for Gaussians of ``s`` pixels inside the image.
    covariances : xx, yy, xy in squared pixels.
    box : side of the images.
    window : radius in standard deviations beyond which a Gaussian is zero.
    """
    images, _, count = positions.shape
    xx, yy, xy = covariances.unbind(1)
    # The mean variance is divided out first, so that the determinant does not underflow.
    scale = 0.5 * (xx + yy)
    determinant = (xx / scale) * (yy / scale) - (xy / scale) ** 2
    zero = torch.zeros_like(xx)
    precisions = torch.stack([yy, xx, zero, -xy, zero, zero], dim=-1) / (determinant * scale * scale)[..., None]
    amplitudes = masses / ((2 * math.pi) * kept_mass(2, window) * determinant.sqrt() * scale)
    plane = torch.arange(images, device=positions.device).to(positions)[:, None].expand(-1, count)
    centres = torch.stack([*(positions + box // 2).unbind(1), plane], dim=-1)
    reach = window * torch.stack([xx, yy, zero], dim=-1).sqrt()
    return windowed_sum(
        centres.flatten(0, 1),
        amplitudes.flatten(),
        precisions.flatten(0, 1),
        reach.flatten(0, 1),
        (images, box, box),
        window,
        own_planes=True,
    )


def splatted_projections(
    positions: Float[Tensor, "b 2 n"], masses: Float[Tensor, "n"], covariances: Float[Tensor, "b 3 n"], band: Band
) -> Complex[Tensor, "b m"]:
    """Band vectors of splatted images, as orthonormal transforms; arguments as for :func:`splat`.

    Images are splatted twice as fine as the band's box, and Gaussians that are too narrow even for that are widened by
    a common variance, which is taken out again in Fourier space.
    """
    with torch.no_grad():
        xx, yy, xy = (4 * covariances).unbind(1)
        least = 0.5 * (xx + yy) - (0.25 * (xx - yy) ** 2 + xy**2).sqrt()
        blur = float((LEAST_VARIANCE - least.min()).clamp(min=0)) if least.numel() else 0.0
    widened = 4 * covariances + covariances.new_tensor([blur, blur, 0.0])[:, None]
    fine = Band(2 * band.box, band.limit)
    vectors = fine.from_images(splat(2 * positions, masses, widened, fine.box))
    return vectors * (2 * torch.exp(2 * math.pi**2 * blur * fine.frequency.square().sum(-1))).to(positions)
