"""First Gaussians: of nothing, of a map, or of what a map has left over, and of atoms."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.errors import InputError
from hoarfrost.io.atoms import Atoms
from hoarfrost.io.pseudo_atoms import B_FACTOR_OF_VARIANCE
from hoarfrost.representations.gaussians import GaussianDensity
from hoarfrost.types import Volume

SPREAD = 0.3
"""Deviation of random centres on each axis, in radii of the particle."""

RANDOM_SCALE = 0.1
"""Scale of random Gaussians, in deviations of their centres."""

SCALE_OF_SPACING = 0.6
"""Scale of Gaussians drawn from a map, in the side of the cube that each has to itself."""


def random_gaussians(
    count: int,
    radius: float,
    mass: float,
    box: int,
    voxel_size: float,
    generator: torch.Generator,
    *,
    isotropic: bool = False,
) -> GaussianDensity:
    """A ball of small equal Gaussians about the origin, from which a mixture can be trained.

    In a box whose half side is twice the particle's radius these are the random numbers of CryoSplat
    (arXiv 2508.04929): centres of deviation 0.075 boxes, scales of a tenth of that.

    Parameters
    ----------
    radius : of the particle in Å.
    mass : of all Gaussians together, in units of the map.
    """
    spread = SPREAD * radius
    centres = spread * torch.randn(count, 3, generator=generator)
    return _equal(centres, mass, RANDOM_SCALE * spread, box, voxel_size, isotropic)


def seed_from_map(
    volume: Volume,
    count: int,
    generator: torch.Generator,
    *,
    scale: float | None = None,
    isotropic: bool = False,
) -> GaussianDensity:
    """Equal Gaussians at places drawn in proportion to the positive density of a map.

    Of the map less what a mixture already has (``volume - density.to_volume(box)``) they are what the mixture lacks.

    Parameters
    ----------
    volume : a cube.
    scale : in Å; by default such that Gaussians and the gaps between them are alike, but not below half a voxel.

    Raises
    ------
    InputError
        If the map has no positive density.
    """
    centres, positive = drawn_from(volume, count, generator), volume.data.clamp(min=0).double()
    box, voxel_size = volume.box, volume.voxel_size
    if scale is None:
        filled = float(positive.sum().square() / positive.square().sum())  # voxels, were they all alike
        scale = voxel_size * max(0.5, SCALE_OF_SPACING * (filled / count) ** (1 / 3))
    return _equal(centres, float(positive.sum()), scale, box, voxel_size, isotropic)


def drawn_from(volume: Volume, count: int, generator: torch.Generator) -> Float[Tensor, "count 3"]:
    """Points (x, y, z) in Å drawn in proportion to the positive density of a map, evenly within its voxels.

    Raises
    ------
    InputError
        If the map has no positive density.
    """
    box = volume.box
    # Inversion of the cumulative sum: other ways of drawing are limited in the number of voxels.
    cumulative = volume.data.clamp(min=0).double().flatten().cumsum(0)
    if not float(cumulative[-1]) > 0:
        raise InputError("the map has no positive density from which Gaussians could be drawn")
    drawn = torch.rand(count, generator=generator, dtype=torch.float64).to(cumulative.device) * cumulative[-1]
    place = torch.searchsorted(cumulative, drawn, right=True).clamp(max=len(cumulative) - 1)
    indices = torch.stack([place % box, place // box % box, place // box**2], dim=-1)
    within = torch.rand(count, 3, generator=generator, dtype=torch.float64).to(indices.device) - 0.5
    return ((indices - box // 2 + within) * volume.voxel_size).to(volume.data.dtype)


def gaussians_of_atoms(
    atoms: Atoms, box: int, voxel_size: float, *, least_scale: float = 0.5, isotropic: bool = True
) -> GaussianDensity:
    """One Gaussian an atom: mass its atomic number times its occupancy, width from its B factor.

    Parameters
    ----------
    atoms : coordinates about the origin of the map.
    least_scale : deviation in Å of an atom at rest, to whose variance that of the B factor is added.
    """
    scales = (least_scale**2 + atoms.b_factors.clamp(min=0) / B_FACTOR_OF_VARIANCE).sqrt().float()
    masses = (atoms.elements.clamp(min=1) * atoms.occupancies).float()
    return GaussianDensity(
        centres=atoms.coordinates.float(),
        masses=masses,
        scales=scales[:, None].repeat(1, 1 if isotropic else 3),
        quaternions=None if isotropic else _unturned(masses),
        box=box,
        voxel_size=voxel_size,
    )


def _equal(
    centres: Float[Tensor, "n 3"], mass: float, scale: float, box: int, voxel_size: float, isotropic: bool
) -> GaussianDensity:
    masses = torch.full_like(centres[:, 0], mass / len(centres))
    return GaussianDensity(
        centres=centres,
        masses=masses,
        scales=torch.full_like(centres[:, : 1 if isotropic else 3], scale),
        quaternions=None if isotropic else _unturned(masses),
        box=box,
        voxel_size=voxel_size,
    )


def _unturned(like: Float[Tensor, "n"]) -> Float[Tensor, "n 4"]:
    """Quaternions that turn nothing."""
    return like.new_tensor([0.0, 0.0, 0.0, 1.0]).repeat(len(like), 1)
