"""Local resolution: the Fourier shell correlation of half-maps inside a small window about every point.

Cardone, Heymann and Steven, J. Struct. Biol. 184, 226 (2013). The window is soft, so that the correlation is that of a
neighbourhood; it is moved over the map on a coarse grid, and between its places the resolution is interpolated.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate

from hoarfrost.fourier.shells import radius_3d
from hoarfrost.types import HalfMaps, Volume

WINDOWS_AT_ONCE = 64

THRESHOLD = 0.5
"""Local correlations rest on few coefficients: at 0.143 their noise would decide."""


def local_resolution(
    half_maps: HalfMaps,
    mask: Volume | None = None,
    *,
    window: int | None = None,
    step: int | None = None,
    threshold: float = THRESHOLD,
) -> Volume:
    """Resolution in Å at every voxel; that of the window's side where nothing agrees.

    Parameters
    ----------
    half_maps : HalfMaps
        Unfiltered.
    mask : Volume, optional
        Windows whose centre lies outside it take no part and have the resolution of the nearest that do not; a cube
        outside is simply the coarsest value.
    window, step : int, optional
        Side of the window, even, and distance of its places, in voxels: a quarter of the box (16 at least), and an
        eighth of the window (2 at least).
    """
    first, second = half_maps.first, half_maps.second
    box, voxel_size = first.box, first.voxel_size
    side = min(window or max(16, 2 * round(box / 8)), box - box % 2)
    step = step or max(2, side // 8)
    places = torch.arange(0, box, step)
    centres = torch.cartesian_prod(places, places, places)
    coarsest = side * voxel_size
    found = torch.full((len(centres),), coarsest)
    used = torch.arange(len(centres))
    if mask is not None:
        z, y, x = centres.unbind(1)
        used = (mask.data[z, y, x] > 0.1).nonzero()[:, 0]
    half = side // 2
    padded = [torch.nn.functional.pad(one.data, (half,) * 6) for one in (first, second)]
    taper = _taper(side)
    shells = radius_3d((side, side, half + 1), (half, half, 0)).round().long()
    shells = torch.fft.ifftshift(shells, (0, 1))
    for part in used.split(WINDOWS_AT_ONCE):
        spectra = [torch.fft.rfftn(_windows(one, centres[part], side) * taper, dim=(1, 2, 3)) for one in padded]
        curve = _correlation(spectra[0], spectra[1], shells, half)
        found[part] = _crossing(curve, threshold, coarsest)
    grid = found.reshape(1, 1, *(len(places),) * 3)
    # Places lie at 0, step, 2 step, ...: interpolation with aligned corners from the first to the last.
    covered = int(places[-1]) + 1
    fine = interpolate(1 / grid, size=(covered,) * 3, mode="trilinear", align_corners=True)[0, 0]
    fine = torch.nn.functional.pad(fine[None, None], (0, box - covered) * 3, mode="replicate")[0, 0]
    return Volume(1 / fine, voxel_size)


def _taper(side: int) -> Float[Tensor, "{side} {side} {side}"]:
    """One at the centre, zero from half a side on: a raised cosine of the distance."""
    distance = radius_3d((side,) * 3, (side // 2,) * 3) / (side / 2)
    return 0.5 + 0.5 * torch.cos(math.pi * distance.clamp(max=1))


def _windows(padded: Float[Tensor, "z y x"], centres: Int[Tensor, "w 3"], side: int) -> Float[Tensor, "w s s s"]:
    cubes = [padded[z : z + side, y : y + side, x : x + side] for z, y, x in centres.tolist()]
    return torch.stack(cubes)


def _correlation(first: Tensor, second: Tensor, shells: Int[Tensor, "z y x"], last: int) -> Float[Tensor, "w shells"]:
    # The planes kx = 0 and Nyquist hold both members of each conjugate pair.
    pairs = torch.full((last + 1,), 2.0)
    pairs[0] = pairs[-1] = 1.0
    index = shells.flatten().clamp(max=last + 1)

    def total(a: Tensor, b: Tensor) -> Tensor:
        products = ((a * b.conj()).real * pairs).flatten(1)
        return products.new_zeros(len(products), last + 2).index_add_(1, index, products)[:, : last + 1]

    power = (total(first, first) * total(second, second)).sqrt()
    return total(first, second) / power.clamp(min=1e-20)


def _crossing(curve: Float[Tensor, "w shells"], threshold: float, coarsest: float) -> Float[Tensor, "w"]:
    """Resolution of the first crossing, linearly interpolated between shells; never below the first shell."""
    below = curve[:, 1:] < threshold
    shell = torch.where(below.any(1), below.int().argmax(1) + 1, curve.shape[1] - 1)
    above, under = curve.gather(1, shell[:, None] - 1)[:, 0], curve.gather(1, shell[:, None])[:, 0]
    fraction = ((above - threshold) / (above - under).clamp(min=1e-6)).clamp(0, 1)
    position = torch.where(below.any(1), shell - 1 + fraction, shell.to(fraction))
    return coarsest / position.clamp(min=1.0)
