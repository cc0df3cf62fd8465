"""Images of phantoms through a microscope."""

import math

import torch

from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.physics.ctf import contrast_transfer_function
from hoarfrost.types import ImageArray, Optics, Particles, Poses


def phantom_stack(phantom, count, *, box, pixel_size, snr, shift_px, generator):
    """A blind stack with CTF, shifts up to ``shift_px`` and white noise (signal of variance 1), and its poses."""
    rotations = random_rotations(count, generator)
    shifts = pixel_size * shift_px * (2 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 1)
    defocus = 8000 + 10000 * torch.rand(count, generator=generator, dtype=torch.float64)
    optics = Optics.uniform(count, pixel_size=pixel_size).replace(defocus_u=defocus, defocus_v=defocus - 200)
    poses = Poses(rotations, shifts)
    return Particles(ImageArray(noisy_images(phantom, poses, optics, box, snr, generator)), optics), poses


def noisy_images(phantom, poses, optics, box, snr, generator):
    """Images of a phantom at these poses; one group of pixel sizes."""
    band = Band.to_nyquist(box)
    clean = band.from_images(phantom.project(poses.rotations, poses.shifts, box, float(optics.pixel_size[0])))
    images = band.to_images(clean * contrast_transfer_function(optics, band.frequency)).float()
    return images / images.std() + torch.randn(images.shape, generator=generator) / math.sqrt(snr)
