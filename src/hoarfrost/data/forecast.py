"""How much disk and memory a run over a stack will want, and whether they are there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hoarfrost.data.plausibility import Finding
from hoarfrost.fourier.band import Band
from hoarfrost.types import Particles

_PROGRAM = 1.5e9
"""Bytes of PyTorch, and of the batches of images that are worked on."""
_PER_VOXEL = 220
"""Bytes a voxel: two half-maps' sums on grids of twice the box (12 bytes on half of eight voxels each), and again as
much and a little more for the transforms that finish the maps."""


STORED_BYTES = 4
"""Bytes on disk of a coefficient of an image: two numbers in half precision."""

STORED_WHOLE = 8192
"""Bands of this many coefficients or fewer are stored whole, so that the images are read and transformed only once."""


def stored_limit(whole: Band, needed: int) -> int:
    """Last shell of the band to be stored: all of a small one, else what the refinement of poses needs."""
    return whole.limit if len(whole) <= STORED_WHOLE else min(needed, whole.limit)


@dataclass(frozen=True)
class Forecast:
    """Bytes that a run will want, and what was found: None where nothing could be measured."""

    disk: float
    memory: float
    disk_free: float | None
    memory_installed: float | None
    begun: bool = False  # a run stands in the folder, and may have taken its room already

    @property
    def concerns(self) -> Iterator[Finding]:
        """What does not suffice, or may not."""
        if self.disk_free is not None and self.disk > 0.95 * self.disk_free:
            yield Finding(
                "error" if self.disk > self.disk_free and not self.begun else "warning",
                f"transformed images need {readable_size(self.disk)} on disk and {readable_size(self.disk_free)} are "
                "free",
                "choose another output folder, or a coarser --max-resolution",
            )
        if self.memory_installed is not None and self.memory > 0.9 * self.memory_installed:
            yield Finding(
                "warning",
                f"maps of this box need about {readable_size(self.memory)} of memory and the machine has "
                f"{readable_size(self.memory_installed)}",
                "downsample the stack (hoarfrost downsample)",
            )


def forecast(
    particles: Particles, limit: int | None = None, workspace: Path | None = None, *, stored: bool = True
) -> Forecast:
    """Disk for the band vectors and memory for maps of this box.

    Parameters
    ----------
    particles : Particles
    limit : int, optional
        Last shell that poses are refined in; up to Nyquist without it.
    workspace : Path, optional
        Folder that is to hold the band vectors; it need not exist yet.
    stored : bool
        Whether band vectors are written at all.
    """
    box = particles.box
    whole = Band.to_nyquist(box)
    band = Band(box, stored_limit(whole, whole.limit if limit is None else limit))
    return Forecast(
        disk=float(STORED_BYTES) * len(particles) * len(band) if stored else 0.0,
        memory=_PROGRAM + _PER_VOXEL * float(box) ** 3,
        disk_free=None if workspace is None else _free(workspace),
        memory_installed=_installed(),
        begun=workspace is not None and workspace.is_dir() and any(workspace.iterdir()),
    )


def readable_size(count: float) -> str:
    """Bytes as people say them: ``36 kB``, ``7.5 MB``, ``12.3 GB``."""
    if count < 1e5:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:.1f} MB" if count < 1e8 else f"{count / 1e9:.1f} GB"


def _free(folder: Path) -> float | None:
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())
    disk = shutil.disk_usage(existing)
    # Some file systems do not know, and say that they have no room at all.
    return float(disk.free) if disk.total > 0 else None


def _installed() -> float | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
