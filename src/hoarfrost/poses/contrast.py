"""How strongly each particle shows: the scale of its image that fits best, with the noise of that estimate.

Ice, dose and the normalisation of images make the density of some particles appear stronger than that of others. For
a whitened image the log-likelihood is quadratic in a factor ``a`` on the model, so that the best is closed-form,

    a = sum v Re<C Y, X_t> / sum v C^2 |Y|^2,      var(a) = 1 / (2 sum v C^2 |Y|^2)

(the bound of Cramer and Rao, for noise of unit power in a complex coefficient). One image says little, so that ``a``
is drawn to the mean of its group by how much of the scatter within the group the noise explains.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.data.dataset import BandImages
from hoarfrost.representations.base import Density


@dataclass(frozen=True)
class Contrast:
    """Scale of each image relative to the model, and the standard deviation of its error from the noise."""

    scale: Float[Tensor, "b"]
    deviation: Float[Tensor, "b"]


def contrast(
    images: BandImages,
    density: Density,
    rotations: Float[Tensor, "b 3 3"],
    shifts: Float[Tensor, "b 2"],
    weight: Float[Tensor, "m"],
) -> Contrast:
    """The best scale of every image by itself; shifts in pixels.

    An image without any signal in its model has the scale 1 and an infinite deviation.
    """
    model = images.transfer * density.project(rotations.to(images.transfer), images.band, images.frequency_matrix)
    data, weight = images.centred(shifts).vectors, weight.to(images.transfer)
    cross = (weight * (data.real * model.real + data.imag * model.imag)).sum(-1)
    power = (weight * (model.real.square() + model.imag.square())).sum(-1)
    return Contrast(torch.where(power > 0, cross / power, torch.ones_like(power)), (2 * power).rsqrt())


def shrunk(measured: Contrast, group: Int[Tensor, "b"]) -> Float[Tensor, "b"]:
    """Scales drawn to their group's mean: the posterior mean under a normal spread of each group.

    The spread is what is left of the scatter of a group once the noise is taken off (DerSimonian & Laird, Controlled
    Clinical Trials 7, 177 (1986)); a group whose scatter is all noise gets one scale.
    """
    scale, information = measured.scale.double(), measured.deviation.double().pow(-2)
    result = torch.empty_like(scale)
    for number in group.unique():
        rows = group == number
        value, weight = scale[rows], information[rows]
        total = weight.sum()
        if total == 0:
            result[rows] = value
            continue
        mean = (weight * value).sum() / total
        scatter = (weight * (value - mean).square()).sum() - (len(value) - 1)
        spread = (scatter / (total - weight.square().sum() / total).clamp(min=1e-30)).clamp(min=0)
        precision = 1 / (spread + 1 / weight)
        mean = (precision * value).sum() / precision.sum()
        share = spread * weight / (1 + spread * weight)
        result[rows] = mean + share * (value - mean)
    return result.to(measured.scale)
