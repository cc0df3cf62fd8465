"""Images a second of the simulator at box 128, and how near its projections are to exact ones.

The rate covers everything from the molecule's map to files on disk: projection, shift, CTF, noise, writing. Exact
projections are sums over the atoms' form factors on the plane of each view.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time

import gemmi
import torch
from torch import Tensor

from hoarfrost.data.builtin import builtin_complex
from hoarfrost.data.density import density_from_atoms
from hoarfrost.data.projector import SeriesProjector
from hoarfrost.data.simulate import Noise, simulate
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.io.atoms import Atoms

BOX, PIXEL_SIZE = 128, 2.0
LEAST_RATE, LEAST_CORRELATION = 500.0, 0.999


def rate(atoms: Atoms, count: int, colour: str) -> tuple[float, float, float]:
    """Images a second of wall time, CPU milliseconds an image, and seconds of preparation."""
    start = time.perf_counter()
    noise = Noise(0.1, "white" if colour == "white" else "coloured")
    generator = torch.Generator().manual_seed(0)
    stack = simulate(atoms, count=count, box=BOX, pixel_size=PIXEL_SIZE, noise=noise, generator=generator)
    prepared = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        start, processor = time.perf_counter(), time.process_time()
        stack.write(folder)
        wall, processor = time.perf_counter() - start, time.process_time() - processor
    return count / wall, 1e3 * processor / count, prepared


def exact_slices(atoms: Atoms, rotations: Tensor, band: Band) -> Tensor:
    """The molecule's transform on the planes of these views, atom by atom; double precision."""
    square = (band.radius / (BOX * PIXEL_SIZE)).square()
    positions = (rotations @ (atoms.coordinates - atoms.centre_of_mass).T)[:, :2].mT
    total = torch.zeros(len(rotations), len(band), dtype=torch.complex128)
    for number in atoms.elements.unique().tolist():
        factor = gemmi.Element(number).c4322
        form = torch.tensor([factor.calculate_sf(float(s2) / 4) for s2 in square], dtype=torch.float64)
        for part in torch.nonzero(atoms.elements == number)[:, 0].split(500):
            angle = (-2 * math.pi / PIXEL_SIZE) * (positions[:, part] @ band.frequency.T)
            weight = atoms.occupancies[part, None] * torch.exp(-atoms.b_factors[part, None] * square / 4)
            total += form * torch.polar(weight.expand_as(angle), angle).sum(1)
    return total


def correlation(atoms: Atoms, views: int = 3) -> float:
    """The lowest correlation of a projection with the exact one, to Nyquist."""
    band = Band.to_nyquist(BOX)
    rotations = random_rotations(views, torch.Generator().manual_seed(1))
    slices = SeriesProjector(density_from_atoms(atoms, BOX, PIXEL_SIZE)).project(rotations, band).to(torch.complex128)
    exact = exact_slices(atoms, rotations, band)
    product = (slices * exact.conj()).real.sum(-1)
    return float((product / (slices.norm(dim=-1) * exact.norm(dim=-1))).min())


def main() -> int:
    """Print the figures; exit with 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    atoms = builtin_complex()
    passed = True
    print(f"box {BOX}, {len(atoms)} atoms, {options.images} images, {options.threads} threads")
    for colour in ("white", "coloured"):
        images_a_second, milliseconds, prepared = rate(atoms, options.images, colour)
        passed &= images_a_second >= LEAST_RATE
        print(
            f"{colour} noise: {images_a_second:.0f} images/s (bar {LEAST_RATE:.0f}), {milliseconds:.2f} ms of CPU an "
            f"image ({1e3 * options.threads / milliseconds:.0f} images/s where nothing else runs), "
            f"{prepared:.1f} s to prepare"
        )
    lowest = correlation(atoms)
    passed &= lowest > LEAST_CORRELATION
    print(f"correlation with exact projections: {lowest:.6f} (bar {LEAST_CORRELATION})")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
