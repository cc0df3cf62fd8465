"""What a user gives beside the images: maps, masks and poses, checked and brought onto the grid of the images."""

from __future__ import annotations

import math
from pathlib import Path

from hoarfrost.errors import InputError
from hoarfrost.fourier.transforms import crop_or_pad_centred, resample_centred
from hoarfrost.io.mrc import read_header, read_map
from hoarfrost.types import Particles, Volume


def require_sound_poses(particles: Particles, table: Path, otherwise: str) -> None:
    """Refuse poses that are no numbers, or lie outside their images; ``otherwise`` says what else could be done."""
    poses = particles.poses
    if poses is None:
        return
    broken = ~(poses.rotations.isfinite().all(-1).all(-1) & poses.shifts.isfinite().all(-1))
    if bool(broken.any()):
        row = int(broken.nonzero()[0]) + 1
        raise InputError(f"{table}: row {row}: the pose is not a number; mend it, {otherwise}")
    side = particles.box * particles.optics.pixel_size
    outside = poses.shifts.abs().amax(-1) > side / 2
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise InputError(
            f"{table}: row {row + 1}: a shift of {float(poses.shifts[row].abs().max()):.0f} Å leaves the image of "
            f"{float(side[row]):.0f} Å; check the units of the origins, {otherwise}"
        )


def read_sized(path: Path) -> Volume:
    """A cubic map that says its voxel size.

    Raises
    ------
    InputError
        A map without a voxel size, or one that is no cube.
    """
    header = read_header(path)
    if min(header.voxel_size) <= 0:
        raise InputError(f"{path}: its header has no voxel size; write it again with that of the map")
    if len(set(header.shape)) != 1:
        raise InputError(f"{path}: a cubic map is needed, this one is {header.shape} (sections, rows, columns)")
    volume = read_map(path)
    if float(volume.data.max()) == float(volume.data.min()):
        raise InputError(f"{path}: the map is constant; give one that shows the particle")
    return volume


def fitted(volume: Volume, particles: Particles, path: Path) -> tuple[Volume, str]:
    """The map on the grid of the images, and what was done to it ("" for nothing).

    Its voxel size becomes the images' by Fourier cropping or padding, exact to half a per cent; then the box is cut or
    filled to theirs.

    Raises
    ------
    InputError
        A map that shows less than half of the images' field, or more than four times as much.
    """
    box, pixel_size = particles.box, particles.pixel_size
    side, wanted = volume.box * volume.voxel_size, box * pixel_size
    if not 0.5 * wanted <= side <= 4 * wanted:
        raise InputError(
            f"{path}: the map is {side:.0f} Å wide ({volume.box} voxels of {volume.voxel_size:.4g} Å), the images "
            f"{wanted:.0f} Å; check its voxel size, or give a map of these particles"
        )
    if volume.box == box and math.isclose(volume.voxel_size, pixel_size, rel_tol=5e-3):
        return Volume(volume.data, pixel_size), ""
    resampled = max(2, 2 * round(side / pixel_size / 2)) if not math.isclose(side, wanted, rel_tol=5e-3) else box
    # Cut or fill first where that makes the resampling exact: the solvent is zero after levelling.
    data = volume.data - volume.data[0].mean()
    data = crop_or_pad_centred(resample_centred(data, resampled, (0, 1, 2)), box, (0, 1, 2))
    note = (
        f"{path}: {volume.box} voxels of {volume.voxel_size:.4g} Å are brought to {box} of {pixel_size:.4g} Å, as the "
        "images have"
    )
    return Volume(data, pixel_size), note


def fitted_mask(path: Path, particles: Particles) -> Volume:
    """A mask on the grid of the images.

    Raises
    ------
    InputError
        Another box or voxel size, values outside [0, 1], or nothing inside.
    """
    mask = read_map(path)
    box, pixel_size = particles.box, particles.pixel_size
    if mask.data.shape != (box, box, box) or not math.isclose(mask.voxel_size, pixel_size, rel_tol=1e-2):
        shape = " x ".join(str(length) for length in mask.data.shape)
        raise InputError(
            f"{path}: the mask has {shape} voxels of {mask.voxel_size:.4g} Å, the images {box} of {pixel_size:.4g} Å; "
            "make it from a map of these particles (hoarfrost mask)"
        )
    low, high = float(mask.data.min()), float(mask.data.max())
    if low < -1e-3 or high > 1.001 or high < 0.5:
        raise InputError(f"{path}: a mask has values from 0 to 1, this file has {low:.3g} to {high:.3g}")
    return Volume(mask.data.clamp(0, 1), pixel_size)
