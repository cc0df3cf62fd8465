"""RELION as a second opinion on a map: its reconstruction of the same table, and how far two maps agree.

Nothing here uses hoarfrost: maps are read with mrcfile and correlated with numpy, so that a fault of the package
cannot hide itself.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import mrcfile
import numpy as np
from numpy.typing import NDArray

PROGRAM = "relion_reconstruct"
LEAST_CORRELATION = 0.98
LARGEST_DIFFERENCE = 1.0
"""Bars: the FSC in every shell to half Nyquist, and the distance in shells of the two crossings of 0.5."""

Array = NDArray[np.floating]


def relion_found() -> bool:
    """Whether RELION's reconstruction program is installed."""
    return shutil.which(PROGRAM) is not None


def relion_reconstruct(table: Path, output: Path, *, project: Path, half: int | None = None) -> Array:
    """RELION's CTF-corrected map of a particle table, (z, y, x); of one half where asked for.

    ``project`` is the folder that image names in the table count from, RELION's project folder.
    """
    command = [PROGRAM, "--i", str(table), "--o", str(output), "--ctf"]
    if half is not None:
        command += ["--subset", str(half)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not output.exists():
        raise RuntimeError(f"{PROGRAM} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return read_map(output)


def read_map(path: Path) -> Array:
    """A map as a float64 array (z, y, x)."""
    with mrcfile.open(path, permissive=True) as file:
        return np.asarray(file.data, dtype=np.float64)


def shell_correlation(first: Array, second: Array) -> Array:
    """Fourier shell correlation on shells 0 ... D/2, each one Fourier pixel wide."""
    transforms = [np.fft.fftn(data) for data in (first, second)]
    axes = [np.fft.fftfreq(length, 1 / length) for length in first.shape]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    shell = np.rint(np.sqrt(z**2 + y**2 + x**2)).astype(int).ravel()
    shells = min(first.shape) // 2 + 1

    def total(a: NDArray[np.complexfloating], b: NDArray[np.complexfloating]) -> Array:
        return np.bincount(shell, (a * b.conj()).real.ravel())[:shells].astype(np.float64)

    a, b = transforms
    power = np.sqrt(total(a, a) * total(b, b))
    return np.where(power > 0, total(a, b) / np.maximum(power, np.finfo(float).tiny), 0.0)


def crossing(curve: Array, threshold: float = 0.5) -> float:
    """Shell at which a curve first falls below a threshold, interpolated; the last shell if it never does."""
    below = np.flatnonzero(curve[1:] < threshold) + 1
    if len(below) == 0:
        return float(len(curve) - 1)
    shell = int(below[0])
    if shell == 1:
        return 1.0
    return float(shell - 1 + (curve[shell - 1] - threshold) / (curve[shell - 1] - curve[shell]))


def soft_ball(box: int, radius: float, edge: float = 4.0) -> Array:
    """One inside ``radius`` voxels of the centre, falling to zero over ``edge`` more."""
    axis = (np.arange(box) - box // 2) ** 2
    distance = np.sqrt(axis[:, None, None] + axis[:, None] + axis)
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((distance - radius) / edge, 0, 1))


def levelled(data: Array, ball: Array) -> Array:
    """A map inside a ball, its zero being the mean outside: images carry no mean, so that maps float."""
    outside = 1 - ball
    return (data - (data * outside).sum() / outside.sum()) * ball


@dataclass(frozen=True)
class Agreement:
    """How far our map agrees with RELION's, and both with the truth; crossings of 0.5 in shells."""

    curve: list[float]
    last_shell: int
    our_crossing: float | None = None
    their_crossing: float | None = None

    @property
    def least(self) -> float:
        """The lowest correlation to the last shell that counts."""
        return min(self.curve[1 : self.last_shell + 1])

    @property
    def passed(self) -> bool:
        """Whether both bars are met."""
        alike = self.least > LEAST_CORRELATION
        if self.our_crossing is None or self.their_crossing is None:
            return alike
        return alike and abs(self.our_crossing - self.their_crossing) <= LARGEST_DIFFERENCE


def agreement(ours: Array, theirs: Array, *, last_shell: int | None = None) -> Agreement:
    """Compare two maps of one frame, to half Nyquist unless ``last_shell`` comes before it."""
    curve = shell_correlation(ours, theirs)
    end = (len(curve) - 1) // 2
    return Agreement(curve.tolist(), end if last_shell is None else min(end, last_shell))


def with_truth(found: Agreement, ours: Array, theirs: Array, truth: Array) -> Agreement:
    """The agreement with the crossings of both maps against the truth; all three masked alike."""
    crossings = [crossing(shell_correlation(one, truth)) for one in (ours, theirs)]
    return replace(found, our_crossing=crossings[0], their_crossing=crossings[1])
