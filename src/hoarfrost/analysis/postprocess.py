"""What is done to a map after it has been reconstructed: hand, sharpening, filters."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.analysis.fsc import HalfMapFSC, first_crossing, spectral_snr_weight
from hoarfrost.errors import InputError
from hoarfrost.fourier.shells import radius_3d, shell_average
from hoarfrost.geometry.rotations import mirror
from hoarfrost.types import Particles, Volume

_EDGE = 2.0  # Fourier pixels over which a low-pass filter falls off


def flip(volume: Volume) -> Volume:
    """The mirror image ``V(x, y, -z)``, the other hand of the same map.

    The origin, voxel ``floor(D/2)``, stays where it is: voxel ``i`` goes to ``2 floor(D/2) - i``, modulo D. In an even
    box this leaves plane 0, which has no partner, in place.
    """
    depth = volume.data.shape[0]
    planes = (2 * (depth // 2) - torch.arange(depth, device=volume.data.device)) % depth
    return Volume(volume.data[planes], volume.voxel_size)


def flip_poses(particles: Particles) -> Particles:
    """The particles with the poses that go with the flipped map: ``S R S``; shifts, halves and images stay."""
    if particles.poses is None:
        raise InputError("the particles have no poses to flip; give a table with rlnAngleRot, Tilt and Psi")
    return particles.replace(poses=particles.poses.replace(rotations=mirror(particles.poses.rotations)))


def sharpen(volume: Volume, b_factor: float) -> Volume:
    """The map times ``exp(-B s^2 / 4)`` in Fourier space; a negative B (Å^2) sharpens, as in RELION."""
    return _filtered(volume, lambda s: torch.exp(-b_factor / 4 * s.square()))


def low_pass(volume: Volume, resolution: float) -> Volume:
    """The map without what is finer than ``resolution`` Å; the edge is a raised cosine two Fourier pixels wide."""
    extent = volume.box * volume.voxel_size
    cut = extent / resolution

    def edge(s: Float[Tensor, "z y half"]) -> Float[Tensor, "z y half"]:
        position = ((s * extent - cut) / _EDGE + 0.5).clamp(0, 1)
        return 0.5 + 0.5 * torch.cos(math.pi * position)

    return _filtered(volume, edge)


def ending_at(volume: Volume, shell: int) -> Volume:
    """The map without the shells beyond one; the edge is sharp, so that nothing is left there."""
    extent = volume.box * volume.voxel_size
    return _filtered(volume, lambda s: (s * extent).round() <= shell)


def filter_by_fsc(volume: Volume, fsc: HalfMapFSC, threshold: float = 0.143) -> Volume:
    """The full map with every shell weighted by ``sqrt(2F / (1 + F))`` of the corrected half-map correlation.

    Beyond the first crossing of the threshold nothing is left. The weights are interpolated between shells.

    Raises
    ------
    InputError
        If the FSC belongs to another box or voxel size.
    """
    box, extent = volume.box, volume.box * volume.voxel_size
    if len(fsc.frequency) != box // 2 + 1 or not math.isclose(float(fsc.frequency[1]) * extent, 1, rel_tol=1e-3):
        raise InputError(f"the FSC has {len(fsc.frequency)} shells, a map of box {box} {box // 2 + 1} of its own size")
    weights = spectral_snr_weight(fsc.corrected)
    weights[0] = 1.0
    last = extent / first_crossing(fsc.frequency, fsc.corrected, threshold)
    weights[torch.arange(len(weights)) > last] = 0.0
    weights = torch.cat([weights, weights.new_zeros(1)]).to(volume.data)

    def at(s: Float[Tensor, "z y half"]) -> Float[Tensor, "z y half"]:
        shell = (s * extent).clamp(max=len(weights) - 1.001)
        below = shell.long()
        return torch.lerp(weights[below], weights[below + 1], shell - below)

    return _filtered(volume, at)


def guinier_b_factor(volume: Volume, coarsest: float = 10.0, finest: float | None = None) -> float:
    """The B factor (Å^2) that flattens a map: four times the slope of ``ln |F|`` against ``s^2``.

    Negative for the usual map that falls off, and what :func:`sharpen` wants (Rosenthal and Henderson, J. Mol. Biol.
    333, 721 (2003)). The line is fitted to the root-mean-square amplitudes of the shells between ``coarsest`` and
    ``finest`` Å (Nyquist where left out).

    Raises
    ------
    InputError
        If fewer than three shells lie in that range.
    """
    box, extent = volume.box, volume.box * volume.voxel_size
    spectrum = torch.fft.fftshift(torch.fft.rfftn(volume.data.double(), norm="ortho"), (0, 1))
    radius = radius_3d(tuple(spectrum.shape), (box // 2, box // 2, 0), device=spectrum.device)
    power = shell_average(spectrum.abs().square(), radius.round().long(), box // 2 + 1)
    s = torch.arange(box // 2 + 1, device=power.device).double() / extent
    used = (s >= 1 / coarsest) & (s <= (1 / finest if finest else s[-1])) & (power > 0)
    if int(used.sum()) < 3:
        raise InputError(f"a Guinier plot needs three shells finer than {coarsest:g} A; this map has {int(used.sum())}")
    square, height = s[used].square(), power[used].log() / 2
    square = square - square.mean()
    return 4 * float((square * height).sum() / square.square().sum())


def _filtered(volume: Volume, transfer: Callable[[Tensor], Tensor]) -> Volume:
    """The map with its transform multiplied by a function of the frequency in 1/Å."""
    box = volume.box
    spectrum = torch.fft.rfftn(volume.data)
    z = torch.fft.fftfreq(box, device=spectrum.device).to(volume.data)
    x = torch.fft.rfftfreq(box, device=spectrum.device).to(volume.data)
    s = (z[:, None, None].square() + z[:, None].square() + x.square()).sqrt() / volume.voxel_size
    data = torch.fft.irfftn(spectrum * transfer(s), s=(box, box, box), dim=(0, 1, 2))
    return Volume(data, volume.voxel_size)
