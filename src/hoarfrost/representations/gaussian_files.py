"""Gaussians in files: PLY, from which they come back as they were, and pseudo-atoms for ChimeraX."""

from __future__ import annotations

from pathlib import Path

import torch

from hoarfrost.errors import InputError
from hoarfrost.io.ply import read_ply, write_ply
from hoarfrost.io.pseudo_atoms import write_pseudo_atoms
from hoarfrost.representations.gaussians import GaussianDensity

_CENTRE, _SCALES = ("x", "y", "z"), ("scale_0", "scale_1", "scale_2")
_QUATERNION = ("rotation_x", "rotation_y", "rotation_z", "rotation_w")


def write_gaussians(density: GaussianDensity, path: Path) -> None:
    """Write ``.ply`` (everything; Å) or ``.cif`` (pseudo-atoms: centres, mean widths and relative masses).

    Raises
    ------
    InputError
        Another ending, or a file that cannot be written.
    """
    if path.suffix.lower() != ".ply":
        write_pseudo_atoms(path, density.centres, density.variances, density.masses)
        return
    axes = density.scales.shape[1]
    columns = dict(zip(_CENTRE, density.centres.unbind(-1), strict=True)) | {"mass": density.masses}
    columns |= dict(zip(_SCALES[:axes], density.scales.unbind(-1), strict=True))
    if density.quaternions is not None:
        columns |= dict(zip(_QUATERNION, density.quaternions.unbind(-1), strict=True))
    write_ply(path, columns, {"box": str(density.box), "voxel_size": repr(density.voxel_size)})


def read_gaussians(path: Path) -> GaussianDensity:
    """The Gaussians of a PLY file of :func:`write_gaussians`.

    Raises
    ------
    InputError
        If the file is no such file.
    """
    columns, remarks = read_ply(path)
    wanted = [*_CENTRE, "mass", _SCALES[0]]
    with_axes = _SCALES[1] in columns
    if with_axes:
        wanted += [*_SCALES[1:], *_QUATERNION]
    missing = [name for name in wanted if name not in columns] + [n for n in ("box", "voxel_size") if n not in remarks]
    if missing:
        raise InputError(f"{path}: no {missing[0]!r}; Gaussians as hoarfrost writes them are expected")
    try:
        box, voxel_size = int(remarks["box"]), float(remarks["voxel_size"])
    except ValueError as error:
        raise InputError(f"{path}: 'comment box' and 'comment voxel_size' have to be numbers") from error
    scales = _SCALES if with_axes else _SCALES[:1]
    return GaussianDensity(
        centres=torch.stack([columns[name] for name in _CENTRE], dim=-1),
        masses=columns["mass"],
        scales=torch.stack([columns[name] for name in scales], dim=-1),
        quaternions=torch.stack([columns[name] for name in _QUATERNION], dim=-1) if with_axes else None,
        box=box,
        voxel_size=voxel_size,
    )
