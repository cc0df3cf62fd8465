"""Writing cryoSPARC's fields: new poses and CTF values into old records, bit by bit, and whole new records."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hoarfrost.geometry.rotations import matrix_to_rotation_vector
from hoarfrost.io.cryosparc_fields import ALIGNMENT, CONFIDENCE, CTF, JUNK
from hoarfrost.io.records import decimal, unique_ids, with_fields, without_fields
from hoarfrost.io.table import ImageNames
from hoarfrost.types import Optics, Particles, Poses

logger = logging.getLogger("hoarfrost")


def new_records(particles: Particles, names: ImageNames, path: Path) -> np.ndarray:
    """Records of images and their optics, with a ``uid`` made from the image names."""
    optics, count = particles.optics, len(particles)
    lost = [
        what
        for what, values in (
            ("beam tilt", optics.beam_tilt),
            ("odd Zernike terms", optics.odd_zernike),
            ("even Zernike terms", optics.even_zernike),
            ("anisotropic magnification", optics.magnification - torch.eye(2, dtype=torch.float64)),
            ("CTF premultiplication", optics.premultiplied),
        )
        if values.any()
    ]
    if lost:
        logger.warning("%s: a .cs file has no place for %s; left out", path, ", ".join(lost))
    box = particles.images.box
    fields: dict[str, np.ndarray] = {
        "uid": unique_ids(names),
        "blob/path": np.array([names.files[i] for i in names.file], dtype=np.bytes_),
        "blob/idx": np.maximum(names.index, 0).astype(np.uint32),
        "blob/shape": np.full((count, 2), box, np.uint32),
        "blob/psize_A": optics.pixel_size.numpy().astype(np.float32),
        "blob/sign": np.ones(count, np.float32),
        "ctf/type": np.full(count, b"imported"),
        "ctf/exp_group_id": (optics.group.numpy() + 1).astype(np.uint32),
    }
    for field, name, _ in CTF:
        fields[name] = getattr(optics, field).numpy().astype(np.float32)
    dtype = [(name, values.dtype, values.shape[1:]) for name, values in fields.items()]
    data = np.empty(count, dtype=dtype)
    for name, values in fields.items():
        data[name] = values
    return data


def with_ctf(data: np.ndarray, new: Optics, old: Optics) -> np.ndarray:
    """The records with those CTF values exchanged that differ from ``old``."""
    fields: dict[str, np.ndarray] = {}
    for field, name, _ in CTF:
        column, was = getattr(new, field).cpu(), getattr(old, field)
        if not torch.equal(column, was):
            values = column.numpy().astype(np.float32)
            fields[name] = np.where((column == was).numpy(), data[name], values) if _has(data, name) else values
    return with_fields(data, fields)


def with_junk(data: np.ndarray, junk: Float[Tensor, "n"] | None) -> np.ndarray:
    """The records with the probability of junk; without the field where there is none."""
    if junk is None:
        return without_fields(data, [JUNK]) if _has(data, JUNK) else data
    return with_fields(data, {JUNK: junk.cpu().numpy().astype(np.float32)})


def with_poses(data: np.ndarray, particles: Particles, old: Poses | None, pixel_size: Float[Tensor, "n"]) -> np.ndarray:
    """The records with poses, halves and classes; ``old`` poses are those that they hold.

    Where the particles have no poses, the group ``alignments3D`` is left out.
    """
    poses, names = particles.poses, data.dtype.names or ()
    if poses is None:
        return without_fields(data, [one for one in names if one.startswith("alignments3D/") or one == CONFIDENCE])
    count = len(data)
    rotations, shifts = poses.rotations.double().cpu(), poses.shifts.double().cpu()
    fields: dict[str, np.ndarray] = {}
    if not _has(data, "alignments3D/pose"):
        for name, kind, value in ALIGNMENT:
            fields[f"alignments3D/{name}"] = np.full(count, value, dtype=kind)
        fields["alignments3D/psize_A"] = pixel_size.numpy().astype(np.float32)
        turned = moved = np.zeros(count, dtype=bool)
    elif old is not None:
        turned = (rotations == old.rotations).all(-1).all(-1).numpy()
        moved = (shifts == old.shifts).all(-1).numpy()
    grown = with_fields(data, fields)
    if not turned.all():
        vector = matrix_to_rotation_vector(rotations.mT).numpy().astype(np.float32)
        if _has(data, "alignments3D/pose"):
            vector = np.where(turned[:, None], data["alignments3D/pose"], vector)
        fields["alignments3D/pose"] = vector
    if not moved.all():
        own = pixel_size
        if _has(grown, "alignments3D/psize_A"):
            own = torch.from_numpy(decimal(grown["alignments3D/psize_A"]))
        size = torch.where(own > 0, own, pixel_size)
        pixels = (-shifts / size[:, None]).numpy().astype(np.float32)
        if _has(data, "alignments3D/shift"):
            pixels = np.where(moved[:, None], data["alignments3D/shift"], pixels)
        fields["alignments3D/shift"] = pixels
    if particles.half is not None:
        fields["alignments3D/split"] = (particles.half.cpu().numpy().clip(1, 2) - 1).astype(np.uint32)
    if particles.classes is not None:
        fields["alignments3D/class"] = (particles.classes.cpu().numpy().clip(1) - 1).astype(np.uint32)
    if poses.confidence is not None:
        fields[CONFIDENCE] = poses.confidence.cpu().numpy().astype(np.float32)
    elif _has(grown, CONFIDENCE):
        grown = without_fields(grown, [CONFIDENCE])
    return with_fields(grown, fields)


def _has(data: np.ndarray, name: str) -> bool:
    return name in (data.dtype.names or ())
