"""Half-maps of one band during refinement: independent sums, Wiener weights from their own agreement.

Both halves are regularised by the signal-to-noise ratio that their Fourier shell correlation shows, and share only
the lowest shells, which keep the two from drifting apart as rigid bodies and are far from where the FSC is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.analysis.fsc import fourier_shell_correlation, validate_half_maps
from hoarfrost.data.dataset import BandStack
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.fourier.transforms import resample_centred
from hoarfrost.geometry.symmetry import point_group
from hoarfrost.kernels.threads import map_parts
from hoarfrost.physics.masks import mask_from_map, soft_sphere
from hoarfrost.reconstruct.backprojection import BackProjection, back_project, symmetrise
from hoarfrost.representations.voxel import FourierVolume
from hoarfrost.types import HalfMaps, Volume

JOINED_RESOLUTION = 40.0
"""Å; about as far may the halves have shells in common, as in RELION."""


@dataclass(frozen=True)
class HalfMapPair:
    """The two maps that poses are refined against, and the FSC of the unregularised ones (masked by the sphere)."""

    first: Float[Tensor, "z y x"]
    second: Float[Tensor, "z y x"]
    fsc: Float[Tensor, "shells"]
    voxel_size: float
    _densities: dict[tuple[int, int, torch.device], FourierVolume] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def mean(self) -> Volume:
        """The map of both halves."""
        return Volume((self.first + self.second) / 2, self.voxel_size)

    def density(self, half: int, limit: int, device: torch.device) -> FourierVolume:
        """The map of half 1 or 2, ready for projection on a device; its tables are made once."""
        key = half, limit, device
        if key not in self._densities:
            data = (self.first if half == 1 else self.second).to(device)
            self._densities[key] = FourierVolume.from_volume(Volume(data, self.voxel_size), limit)
        return self._densities[key]


def small_box(box: int, limit: int) -> int:
    """An even box that holds a band with a margin for the mask's edge, no larger than the image's."""
    return min(box, 2 * math.ceil(1.25 * limit + 2))


def half_sums(
    stack: BandStack,
    rotations: Float[Tensor, "n 3 3"],
    shifts: Float[Tensor, "n 2"],
    half: Int[Tensor, "n"],
    limit: int,
    symmetry: str,
) -> tuple[BackProjection, BackProjection]:
    """Sums of the particles of each half at their poses, symmetrised."""

    def sums(number: int) -> BackProjection:
        return sums_of_rows(stack, rotations, shifts, (half == number).nonzero()[:, 0], limit, symmetry)

    first, second = map_parts(sums, (1, 2), stack.device)
    return first, second


def sums_of_rows(
    stack: BandStack,
    rotations: Float[Tensor, "n 3 3"],
    shifts: Float[Tensor, "n 2"],
    rows: Int[Tensor, "c"],
    limit: int,
    symmetry: str,
) -> BackProjection:
    """Sums of these particles at their poses, symmetrised."""
    grid = SliceGrid(small_box(stack.band.box, limit), limit)
    band = Band(stack.band.box, limit)
    own = back_project(stack, rows, rotations[rows].float(), shifts[rows].float(), band, grid)
    return symmetrise(own, point_group(symmetry))


def support(box: int, extent: float, radius: float, mask: Volume | None = None) -> Float[Tensor, "z y x"]:
    """Where density is sought, on ``box`` voxels over ``extent`` Å: a sphere of ``radius`` Å, or a mask of that extent."""
    if mask is None:
        return soft_sphere(box, radius * box / extent, 3.0)
    return resample_centred(mask.data, box, (0, 1, 2)).clamp(0, 1)


def regularised_pair(
    first: BackProjection, second: BackProjection, *, extent: float, radius: float, mask: Volume | None = None
) -> HalfMapPair:
    """Wiener-filtered half-maps inside a sphere or a mask; ``extent`` (the box) and ``radius`` in Å.

    What a mask of any shape adds to the correlation is taken out of it; a sphere adds next to nothing.
    """
    grid = first.grid
    voxel_size = extent / grid.box
    within = support(grid.box, extent, radius, mask).to(first.sums)
    sums = first.folded(), second.folded()
    plain = [half.volume(0.0) for half in sums]
    if mask is None:
        levelled = [Volume(inside(one, within).cpu(), voxel_size) for one in plain]
        fsc = fourier_shell_correlation(levelled[0], levelled[1]).float()
    else:
        halves = HalfMaps(*(Volume(one.cpu(), voxel_size) for one in plain))
        fsc = validate_half_maps(halves, Volume(within.cpu(), voxel_size)).corrected.float()
    fsc = fsc[: grid.limit + 1]
    inverse_signal = [inverse_signal_power(fsc, half.weight_per_shell) for half in sums]
    maps = [half.volume(inverse) for half, inverse in zip(sums, inverse_signal, strict=True)]
    joined = (sums[0] + sums[1]).volume(sum(inverse_signal) / 2)
    joined_shell = max(3, min(6, math.floor(extent / JOINED_RESOLUTION)))
    maps = [inside(share_low_shells(grid, one, joined, joined_shell), within) for one in maps]
    return HalfMapPair(maps[0].cpu(), maps[1].cpu(), fsc, voxel_size)


def outlined(pair: HalfMapPair, resolution: float) -> HalfMapPair:
    """Each map within its own outline at twice the ``resolution`` (Å): noise of the solvent pulls at poses as well.

    The halves stay independent, as neither outline knows of the other.
    """

    def cut(data: Tensor) -> Tensor:
        shape = mask_from_map(
            Volume(data, pair.voxel_size), extend_px=3.0, edge_px=3.0, lowpass_angstrom=max(15.0, 2 * resolution)
        )
        return data * shape.data

    first, second = map_parts(cut, (pair.first, pair.second), pair.first.device)
    return HalfMapPair(first, second, pair.fsc, pair.voxel_size)


def inverse_signal_power(fsc: Float[Tensor, "shells"], weight: Float[Tensor, "shells"]) -> Float[Tensor, "shells"]:
    """What a Wiener filter adds to the weights: ``W / SNR`` with ``SNR = FSC / (1 - FSC)`` of one half-map."""
    correlation = fsc.to(weight).clamp(1e-3, 0.9999)
    return weight * (1 - correlation) / correlation


def share_low_shells(
    grid: SliceGrid, own: Float[Tensor, "z y x"], joined: Float[Tensor, "z y x"], shell: int
) -> Float[Tensor, "z y x"]:
    """``own`` with its shells up to ``shell`` taken from ``joined``."""
    difference = torch.fft.rfftn(joined - own)
    frequency = torch.fft.fftfreq(grid.box, d=1 / grid.box), torch.fft.rfftfreq(grid.box, d=1 / grid.box)
    z, y, x = torch.meshgrid(frequency[0], frequency[0], frequency[1], indexing="ij")
    low = ((z**2 + y**2 + x**2).sqrt() <= shell + 0.5).to(own.device)
    return own + torch.fft.irfftn(difference * low, s=own.shape)


def inside(volume: Float[Tensor, "z y x"], mask: Float[Tensor, "z y x"]) -> Float[Tensor, "z y x"]:
    """The map inside a mask, its zero being the mean just outside: images carry no mean, so that the map floats."""
    outside = 1 - mask
    solvent = (volume * outside).sum() / outside.sum().clamp(min=1e-6)
    return (volume - solvent) * mask
