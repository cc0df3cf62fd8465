"""Images a second of the simulator at box 128, and how near its projections are to exact ones.

The rate covers everything from the molecule's map to files on disk: projection, shift, CTF, noise, writing. Exact
projections are sums over the atoms' form factors on the plane of each view.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Sequence

import gemmi
import torch
from torch import Tensor

from benchmarks.common import Record, Row, exit_code, parser, show, use_threads
from hoarfrost.data.acquisition import Noise
from hoarfrost.data.builtin import builtin_complex
from hoarfrost.data.density import density_from_atoms
from hoarfrost.data.projector import SeriesProjector
from hoarfrost.data.simulate import simulate
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.io.atoms import Atoms

NAME = "simulate_speed"

BOX, PIXEL_SIZE = 128, 2.0
LEAST_RATE, LEAST_CORRELATION = 500.0, 0.999
BARS = {"images_s": LEAST_RATE, "correlation": LEAST_CORRELATION}
COLUMNS = ("images_s", "cpu_ms_an_image", "preparation_s", "load")


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and leave the figures; 1 if a bar is missed."""
    made = parser(__doc__)
    made.add_argument("--images", type=int, default=5000)
    options = made.parse_args(arguments)
    if options.quick:
        options.images = 64
    use_threads(options.threads)
    atoms = builtin_complex()
    record = Record.open(NAME, options, BARS)
    rows = [_row(record, options, atoms, colour) for colour in ("white", "coloured")]
    lowest = record.figures["correlation"] = correlation(atoms, 1 if options.quick else 3)
    record.write()
    show(
        f"{NAME}: box {BOX}, {len(atoms)} atoms, {options.images} images, {options.threads} threads",
        [{"noise": row["key"]["noise"]} | {name: row[name] for name in COLUMNS} for row in rows],
    )
    print(f"correlation with exact projections: {lowest:.6f}")
    passed = lowest > LEAST_CORRELATION and all(row["images_s"] >= LEAST_RATE for row in rows)
    print(f"bars: {LEAST_RATE:.0f} images/s, correlation {LEAST_CORRELATION}: " + ("PASS" if passed else "short"))
    return exit_code(passed, options)


def _row(record: Record, options: argparse.Namespace, atoms: Atoms, colour: str) -> Row:
    key = {"noise": colour, "images": options.images, "threads": options.threads}
    load = os.getloadavg()[0]
    # Seconds only: always measured with the code as it is.
    return record.add(key, dict(zip(COLUMNS, (*rate(atoms, options.images, colour), load), strict=True)))


if __name__ == "__main__":
    sys.exit(main())
