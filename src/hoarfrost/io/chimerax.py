"""A ChimeraX command script that opens a run's maps the way one wants to see them first.

ChimeraX runs a ``.cxc`` file in the folder that holds it, so that names are relative and the folder can be moved.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from hoarfrost.errors import InputError
from hoarfrost.io.files import replacing
from hoarfrost.types import Volume

_MAP_COLOUR = "#8fb7dc"
_HALF_COLOURS = ("#7fbf9f", "#e3b27a")
_TOP = 0.999
_SHARE_OF_TOP = 0.25
_DEVIATIONS = 4.0


def contour_level(volume: Volume, mask: Volume | None = None) -> float:
    """A level that shows the particle and not the noise.

    It lies a quarter of the way from the solvent's mean to the density that only a thousandth of the particle's
    volume exceeds, and at least four deviations of the solvent above its mean. Solvent is what the mask leaves out,
    or without a mask what lies outside the inscribed sphere.
    """
    axis = [torch.arange(length) - length // 2 for length in volume.data.shape]
    square = axis[0][:, None, None] ** 2 + axis[1][None, :, None] ** 2 + axis[2][None, None, :] ** 2
    inside = square <= (min(volume.data.shape) / 2) ** 2 if mask is None else mask.data > 0.5
    density, solvent = volume.data[inside].flatten(), volume.data[~inside].flatten()
    if len(density) == 0 or len(solvent) < 2:
        density = solvent = volume.data.flatten()
    rank = max(1, round(_TOP * len(density)))
    top, base = float(density.kthvalue(rank).values), float(solvent.mean())
    return max(base + _SHARE_OF_TOP * (top - base), base + _DEVIATIONS * float(solvent.std()))


def write_session_commands(
    path: Path,
    maps: Sequence[Path],
    *,
    level: float,
    half_level: float | None = None,
    diameter: float | None = None,
) -> Path:
    """Write a ``.cxc`` that shows the first map as a surface; further maps (the halves) are opened and hidden.

    Parameters
    ----------
    path : Path
        The script to write, usually ``view.cxc`` in the run folder.
    maps : sequence of Path
        The map, and after it its half-maps.
    level, half_level : float
        Contour levels of the map and of the halves (that of the map where not given).
    diameter : float, optional
        Of the particle in Å; specks smaller than a tenth of it are hidden.

    Raises
    ------
    InputError
        If there is no map, a name cannot be put into a command, or the script cannot be written.
    """
    path = Path(path)
    if not maps:
        raise InputError(f"{path}: there is no map to show")
    lines = ["# Made by hoarfrost. Open it with: chimerax " + path.name]
    lines += [f"open {_quoted(_relative(map_path, path))} id {place}" for place, map_path in enumerate(maps, 1)]
    lines += [
        "set bgColor white",
        "lighting soft",
        "graphics silhouettes true",
        f"volume #1 style surface step 1 level {level:.6g} color {_MAP_COLOUR}",
    ]
    if diameter is not None:
        lines.append(f"surface dust #1 size {diameter / 10:.1f}")
    for place in range(2, len(maps) + 1):
        colour = _HALF_COLOURS[place % len(_HALF_COLOURS)]
        at = level if half_level is None else half_level
        lines.append(f"volume #{place} style surface step 1 level {at:.6g} color {colour}")
        lines.append(f"hide #{place} models")
    lines += [
        "view orient",
        "view #1",
        "# Half-maps: show #2 models    Mirror image: volume flip #1 axis z    Snapshot: save map.png",
    ]
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _relative(map_path: Path, script: Path) -> str:
    return Path(os.path.relpath(map_path, script.parent)).as_posix()


def _quoted(name: str) -> str:
    """A file name as a ChimeraX argument; a quoted text cannot hold its own quote."""
    if any(ord(letter) < 32 for letter in name) or ('"' in name and "'" in name):
        raise InputError(f"{name!r}: ChimeraX cannot open a file of this name; rename it")
    quote = "'" if '"' in name else '"'
    return f"{quote}{name}{quote}"
