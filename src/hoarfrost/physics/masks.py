"""Soft masks: spheres and discs, masks in the shape of a map, and the diameter of the particle that a map shows."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate, max_pool3d

from hoarfrost.errors import InputError
from hoarfrost.fourier.shells import radius_3d
from hoarfrost.types import Volume

CONTOUR = 0.3
"""Where between the density of solvent (0) and of the particle (1) the automatic threshold lies."""
SOLVENT_DEVIATIONS = 4.0
"""The automatic threshold is at least so many standard deviations above the solvent in the corners of the box."""
HELD = 0.99
"""Share of the particle's density that its sphere has to hold; the rest may be specks."""
PIECES_BOX = 64
"""Side of the grid on which connected pieces are told apart."""


def soft_sphere(box: int, radius_px: float, edge_px: float) -> Float[Tensor, "{box} {box} {box}"]:
    """One within ``radius_px`` voxels of the centre, falling to zero over the next ``edge_px`` as a raised cosine."""
    return _falling(radius_3d((box,) * 3, (box // 2,) * 3) - radius_px, edge_px)


def soft_disc(box: int, radius_px: float, edge_px: float) -> Float[Tensor, "{box} {box}"]:
    """One within ``radius_px`` pixels of the centre, falling to zero over the next ``edge_px`` as a raised cosine."""
    axis = torch.arange(box, dtype=torch.float32) - box // 2
    return _falling(torch.hypot(axis[:, None], axis[None, :]) - radius_px, edge_px)


def mask_from_map(
    volume: Volume,
    *,
    threshold: float | None = None,
    extend_px: float = 3.0,
    edge_px: float = 6.0,
    lowpass_angstrom: float | None = 15.0,
    largest_piece: bool = False,
) -> Volume:
    """A mask in the shape of a map: what lies above a threshold, extended, with a soft edge.

    Parameters
    ----------
    volume : Volume
        A cubic map, positive where there is density.
    threshold : float, optional
        In the units of the low-passed map; :func:`automatic_threshold` where not given.
    extend_px, edge_px : float
        Distance in voxels by which the contour is moved outwards, and over which the mask then falls to zero.
    lowpass_angstrom : float, optional
        Resolution in Å to which the map is filtered first; as it is where not given.
    largest_piece : bool
        Keep only the largest connected piece, so that specks of noise outside the particle are left out.

    Raises
    ------
    InputError
        Nothing lies above the threshold.
    """
    for reach in (extend_px, edge_px):
        if not 0 <= reach < math.inf:
            raise InputError(f"mask: it can be extended and softened by 0 voxels or more, not {reach:g}")
    filtered = volume if lowpass_angstrom is None else lowpass(volume, lowpass_angstrom)
    inside = _above(filtered.data, automatic_threshold(filtered.data) if threshold is None else threshold)
    if largest_piece:
        inside &= _largest_piece(inside)
    distance = _distance_to(inside, math.ceil(extend_px + edge_px))
    return Volume(_falling(distance - extend_px, edge_px), volume.voxel_size)


def estimate_diameter(volume: Volume) -> float:
    """Diameter in Å of the sphere about the centre of mass that holds the particle.

    The particle is the largest connected piece above the automatic threshold, but for the outermost hundredth of its
    density. A blurred map gives the diameter of the blurred particle.
    """
    threshold = automatic_threshold(volume.data)
    inside = _above(volume.data, threshold)
    inside &= _largest_piece(inside)
    points = inside.nonzero().double()
    density = volume.data[inside].double() - threshold
    centre = (density[:, None] * points).sum(0) / density.sum()
    distance, order = torch.linalg.vector_norm(points - centre, dim=-1).sort()
    held = density[order].cumsum(0)
    radius = distance[int((held < HELD * held[-1]).sum())]
    return 2 * (float(radius) + 0.5) * volume.voxel_size


def automatic_threshold(data: Float[Tensor, "z y x"]) -> float:
    """A contour level for a map, from the densities of solvent and particle.

    Otsu's threshold splits the voxels into two classes; the level lies three tenths of the way from the mean of the
    lower to that of the upper, where a blurred map still shows thin parts. It is raised, up to the middle, to stand
    four standard deviations above the solvent outside the sphere that the box holds. Voxels that are exactly zero, as
    a mask leaves them, count for nothing.
    """
    values = data[data != 0]
    if values.numel() == 0 or float(values.min()) == float(values.max()):
        raise InputError("mask: the map is constant; a threshold needs a map that shows a particle")
    low, high = float(values.min()), float(values.max())
    count = torch.histc(values.float(), 1024, low, high).double()
    level = low + (high - low) / 1024 * (torch.arange(1024, dtype=torch.float64, device=data.device) + 0.5)
    below, mass = count.cumsum(0), (count * level).cumsum(0)
    above = below[-1] - below
    lower_mean = mass / below.clamp(min=1)
    upper_mean = (mass[-1] - mass) / above.clamp(min=1)
    split = int((below * above * (upper_mean - lower_mean).square()).argmax())
    solvent, particle = float(lower_mean[split]), float(upper_mean[split])
    contour = (1 - CONTOUR) * solvent + CONTOUR * particle
    z, y, x = data.shape
    radius = radius_3d((z, y, x), (z // 2, y // 2, x // 2), device=data.device)
    corners = data[(radius > 0.5 * min(z, y, x)) & (data != 0)]
    if corners.numel() > 1:
        noise = float(corners.mean() + SOLVENT_DEVIATIONS * corners.std())
        # Above the middle, the corners hold density themselves.
        contour = max(contour, min(noise, 0.5 * (solvent + particle)))
    return contour


def lowpass(volume: Volume, resolution: float) -> Volume:
    """The map filtered by a Gaussian in Fourier space that halves amplitudes at ``resolution`` Å."""
    box = volume.box
    frequency = torch.fft.fftfreq(box, volume.voxel_size, device=volume.data.device)
    profile = torch.exp(-math.log(2) * (frequency * resolution).square())
    half = profile[: box // 2 + 1]
    spectrum = torch.fft.rfftn(volume.data) * profile[:, None, None] * profile[:, None] * half
    return Volume(torch.fft.irfftn(spectrum, s=(box, box, box)), volume.voxel_size)


def _above(data: Float[Tensor, "z y x"], threshold: float) -> Bool[Tensor, "z y x"]:
    inside = data > threshold
    if not inside.any():
        raise InputError(
            f"mask: no voxel lies above the threshold {threshold:g}; the highest (after the low-pass filter) is "
            f"{float(data.max()):g}, so give a lower one"
        )
    return inside


def _falling(beyond: Tensor, edge: float) -> Tensor:
    """One where ``beyond`` is negative, zero from ``edge`` on, a raised cosine between."""
    return 0.5 + 0.5 * torch.cos(math.pi * (beyond / max(edge, 1e-6)).clamp(0, 1))


def _distance_to(inside: Bool[Tensor, "z y x"], reach: int) -> Float[Tensor, "z y x"]:
    """Euclidean distance in voxels to the nearest voxel inside: exact up to ``reach``, larger beyond it.

    The square of the distance is a sum over axes, so that its minimum is taken one axis after the other.
    """
    far = float(2 * (reach + 1)) ** 2
    window = _bounds(inside, reach)
    square = torch.where(inside[window], 0.0, far)
    for dim in range(3):
        nearest = square.clone()
        length = square.shape[dim]
        for step in range(1, min(reach, length - 1) + 1):
            for here, there in ((0, step), (step, 0)):
                target = nearest.narrow(dim, here, length - step)
                torch.minimum(target, square.narrow(dim, there, length - step) + step**2, out=target)
        square = nearest
    distance = torch.full(inside.shape, math.sqrt(far), device=inside.device)
    distance[window] = square.sqrt()
    return distance


def _bounds(inside: Bool[Tensor, "z y x"], margin: int) -> tuple[slice, ...]:
    """The smallest box around what is inside, wider by a margin."""
    slices = []
    for dim in range(3):
        others = tuple(other for other in range(3) if other != dim)
        hits = inside.any(dim=others).nonzero()[:, 0]
        slices.append(slice(max(int(hits[0]) - margin, 0), int(hits[-1]) + margin + 1))
    return tuple(slices)


def _largest_piece(inside: Bool[Tensor, "z y x"]) -> Bool[Tensor, "z y x"]:
    """A region around the largest connected piece, told apart on a grid of at most 64 voxels a side.

    Every coarse voxel starts with a number of its own and takes the largest among its neighbours' until nothing
    changes; taking over the number that its number's owner has meanwhile makes that a matter of a few rounds.
    """
    factor = math.ceil(max(inside.shape) / PIECES_BOX)
    coarse = max_pool3d(inside[None, None].float(), factor, ceil_mode=True)
    occupied = coarse > 0
    label = torch.arange(1, coarse.numel() + 1, device=inside.device).reshape(coarse.shape) * occupied
    while True:
        spread = max_pool3d(label.float(), 3, stride=1, padding=1).long() * occupied
        owner = spread.flatten()[(spread.flatten() - 1).clamp(min=0)].reshape(spread.shape)
        grown = torch.maximum(spread, owner) * occupied
        if torch.equal(grown, label):
            break
        label = grown
    sizes = torch.bincount(label.flatten(), weights=coarse.double().flatten())
    sizes[0] = 0
    kept = (label == sizes.argmax()).float()
    padded = interpolate(kept, scale_factor=factor, mode="nearest")[0, 0]
    return padded[: inside.shape[0], : inside.shape[1], : inside.shape[2]] > 0
