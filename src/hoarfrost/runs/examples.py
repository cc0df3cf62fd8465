"""A few particles beside what the map says they should look like."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.data.dataset import Normalisation
from hoarfrost.errors import InputError
from hoarfrost.fourier.band import Band
from hoarfrost.physics.ctf import contrast_transfer_function
from hoarfrost.representations.voxel import FourierVolume
from hoarfrost.types import Particles, Volume


def example_pairs(
    particles: Particles, density: Volume, *, invert: bool, resolution: float, count: int = 6
) -> tuple[Float[Tensor, "e y x"], Float[Tensor, "e y x"]]:
    """Images low-passed to ``resolution`` (Å), and reprojections at their poses with their CTF.

    The particles are spread evenly over the stack: chosen ones would flatter the map.
    """
    if particles.poses is None:
        raise InputError("these particles have no poses")
    rows = torch.linspace(0, len(particles) - 1, min(count, len(particles))).round().long().unique()
    box, pixel_size = particles.box, particles.pixel_size
    band = Band(box, max(3, min((box - 1) // 2, int(box * pixel_size / resolution))))
    images = Normalisation(0.45 * box, invert).apply(particles.images.read(rows))
    optics, poses = particles.optics[rows], particles.poses[rows]
    slices = FourierVolume.from_volume(density, band.limit).project(poses.rotations.float(), band)
    shifts = (poses.shifts / optics.pixel_size[:, None]).float()
    model = slices * contrast_transfer_function(optics, band.frequency) * band.shift_phases(shifts)
    return band.to_images(band.from_images(images)), band.to_images(model)
