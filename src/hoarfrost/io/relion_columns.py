"""Writing RELION's columns: new poses into an old table, text by text, and whole new tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoarfrost.geometry.rotations import matrix_to_euler
from hoarfrost.io.star import StarBlock, Tokens, number_tokens, text_tokens
from hoarfrost.io.table import ImageNames
from hoarfrost.types import Optics, Particles, Poses

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst")
PIXEL_ORIGINS = ("rlnOriginX", "rlnOriginY")
CONFIDENCE = "rlnMaxValueProbDistribution"
JUNK = "hoarfrostJunkProbability"
# Columns that a particle has for itself: field of Optics, label, value in the file for one inside.
PER_PARTICLE = (
    ("defocus_u", "rlnDefocusU", 1.0),
    ("defocus_v", "rlnDefocusV", 1.0),
    ("defocus_angle", "rlnDefocusAngle", 180 / math.pi),
    ("phase_shift", "rlnPhaseShift", 180 / math.pi),
    ("b_factor", "rlnCtfBfactor", 1.0),
    ("scale", "rlnCtfScalefactor", 1.0),
)


def with_poses(
    block: StarBlock,
    new: Poses | None,
    old: Poses | None,
    pixel_size: Float[Tensor, "n"],
    *,
    angstrom: bool,
) -> StarBlock:
    """The particles with ``new`` poses; ``old`` ones are those that the block's columns give.

    Origins go into the columns that are there, else into those in Å or, in an old table, in pixels. No poses, no
    columns for them.
    """
    if new is None:
        return block if old is None else block.without((*ANGLES, *ORIGINS, *PIXEL_ORIGINS, CONFIDENCE))
    rotations, shifts = new.rotations.double().cpu(), new.shifts.double().cpu()
    turned = np.zeros(len(block), dtype=bool)
    moved = turned
    if old is not None:
        turned = (rotations == old.rotations).all(-1).all(-1).numpy()
        moved = (shifts == old.shifts).all(-1).numpy()
    degrees = matrix_to_euler(rotations).rad2deg().numpy()
    for label, column in zip(ANGLES, degrees.T, strict=True):
        block = _merged(block, label, number_tokens(column), turned)
    labels = [pair for pair in (ORIGINS, PIXEL_ORIGINS) if all(label in block for label in pair)]
    for pair in labels or [ORIGINS if angstrom else PIXEL_ORIGINS]:
        origins = 0.0 - shifts if pair is ORIGINS else (0.0 - shifts) / pixel_size[:, None]
        for label, column in zip(pair, origins.numpy().T, strict=True):
            block = _merged(block, label, number_tokens(column), moved)
    return with_numbers(block, CONFIDENCE, new.confidence, None if old is None else old.confidence)


def with_numbers(
    block: StarBlock, label: str, new: Float[Tensor, "n"] | None, old: Float[Tensor, "n"] | None
) -> StarBlock:
    """The particles with a column of numbers exchanged, added, or (where there are none) left out."""
    if new is None:
        return block.without([label])
    values = new.double().cpu().numpy()
    same = np.zeros(len(block), dtype=bool) if old is None else values == old.numpy()
    return _merged(block, label, number_tokens(values), same)


def with_integers(
    block: StarBlock, label: str, new: Int[Tensor, "n"] | None, old: Int[Tensor, "n"] | None
) -> StarBlock:
    """The particles with a column of whole numbers exchanged, added, or (where there are none) left out."""
    if new is None:
        return block.without([label])
    values = new.cpu().numpy()
    same = np.zeros(len(block), dtype=bool) if old is None else values == old.numpy()
    return _merged(block, label, number_tokens(values), same)


def with_ctf(block: StarBlock, new: Optics, old: Optics) -> StarBlock:
    """The particles with those CTF columns exchanged that differ from ``old``."""
    for field, label, unit in PER_PARTICLE:
        values, was = getattr(new, field).cpu(), getattr(old, field)
        if not torch.equal(values, was):
            block = _merged(block, label, number_tokens((values * unit).numpy()), (values == was).numpy())
    return block


def resampled(block: StarBlock, box: int, binning: float, *, image_pixel: bool) -> StarBlock:
    """Sizes and origins of images resampled to ``box``, their pixels ``binning`` times as large.

    ``image_pixel`` says whether ``rlnPixelSize`` is the image's.
    """
    scales = {"rlnImagePixelSize": binning, "rlnDetectorPixelSize": binning} | dict.fromkeys(PIXEL_ORIGINS, 1 / binning)
    if image_pixel:
        scales["rlnPixelSize"] = binning
    for label in scales.keys() & block.columns.keys():
        block = block.with_columns(**{label: number_tokens(block.numbers(label) * scales[label])})
    if "rlnImageSize" in block:
        block = block.with_columns(rlnImageSize=number_tokens(np.full(len(block), box)))
    return block


def new_blocks(particles: Particles, names: ImageNames) -> tuple[StarBlock, StarBlock]:
    """An optics block with one row for each distinct set of group-wise optics, and the particles that refer to it."""
    optics = particles.optics
    count = len(optics)
    wide = [optics.beam_tilt, optics.magnification.reshape(count, 4), optics.odd_zernike, optics.even_zernike]
    narrow = [optics.group, optics.pixel_size, optics.voltage, optics.spherical_aberration]
    narrow += [optics.amplitude_contrast, optics.premultiplied]
    keys = torch.cat([*(column[:, None].double() for column in narrow), *wide], dim=1).numpy()
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    chosen = optics[torch.from_numpy(first)]
    version = (b"# version 30001",)
    optics_columns = _optics_columns(chosen, particles.images.box)
    columns = {
        "rlnImageName": text_tokens(names.relion()),
        "rlnOpticsGroup": number_tokens(group.reshape(-1) + 1),
        "rlnDefocusU": number_tokens(optics.defocus_u.numpy()),
        "rlnDefocusV": number_tokens(optics.defocus_v.numpy()),
        "rlnDefocusAngle": number_tokens(optics.defocus_angle.rad2deg().numpy()),
        "rlnPhaseShift": number_tokens(optics.phase_shift.rad2deg().numpy()),
        "rlnCtfBfactor": number_tokens(optics.b_factor.numpy()),
        "rlnCtfScalefactor": number_tokens(optics.scale.numpy()),
    }
    return StarBlock("optics", optics_columns, comments=version), StarBlock("particles", columns, comments=version)


def _optics_columns(groups: Optics, box: int) -> dict[str, Tokens]:
    count = len(groups)
    columns = {
        "rlnOpticsGroupName": text_tokens(f"opticsGroup{i + 1}" for i in range(count)),
        "rlnOpticsGroup": number_tokens(np.arange(1, count + 1)),
        "rlnVoltage": number_tokens(groups.voltage.numpy()),
        "rlnSphericalAberration": number_tokens(groups.spherical_aberration.numpy()),
        "rlnAmplitudeContrast": number_tokens(groups.amplitude_contrast.numpy()),
        "rlnImagePixelSize": number_tokens(groups.pixel_size.numpy()),
        "rlnImageSize": number_tokens(np.full(count, box)),
        "rlnImageDimensionality": number_tokens(np.full(count, 2)),
    }
    if groups.premultiplied.any():
        columns["rlnCtfDataAreCtfPremultiplied"] = number_tokens(groups.premultiplied.long().numpy())
    if groups.beam_tilt.any():
        columns["rlnBeamTiltX"] = number_tokens(groups.beam_tilt[:, 0].numpy())
        columns["rlnBeamTiltY"] = number_tokens(groups.beam_tilt[:, 1].numpy())
    for label, values in (("rlnOddZernike", groups.odd_zernike), ("rlnEvenZernike", groups.even_zernike)):
        if values.any():
            columns[label] = text_tokens(_vector_text(row) for row in values.tolist())
    if not torch.equal(groups.magnification, torch.eye(2, dtype=torch.float64).expand(count, 2, 2)):
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            columns[f"rlnMagMat{i}{j}"] = number_tokens(groups.magnification[:, i, j].numpy())
    return columns


def _vector_text(values: Sequence[float]) -> str:
    return "[" + ",".join(repr(value) for value in values) + "]"


def _merged(block: StarBlock, label: str, tokens: Tokens, keep: np.ndarray) -> StarBlock:
    """A column with new text except where ``keep`` says that the old text still holds."""
    if keep.all():
        return block
    if label in block:
        tokens = np.where(keep, block.columns[label], tokens)
    return block.with_columns(**{label: tokens})
