"""Rates of the compiled kernels: the search against the processor's peak, and all against the same work in PyTorch.

Everything is measured in one process, a kernel and PyTorch by turns, the best of several calls each.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from benchmarks.common import Record, Row, exit_code, parser, show, use_threads
from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.geometry.shift_grid import shift_grid
from hoarfrost.geometry.so3_grid import OrientationGrid
from hoarfrost.kernels.library import VARIABLE, instruction_set, library
from hoarfrost.kernels.peak import integer_product_rate
from hoarfrost.physics.ctf import contrast_transfer_function
from hoarfrost.poses.gauss_newton import GaussNewton
from hoarfrost.poses.likelihood import search_teraflop
from hoarfrost.poses.search import ExhaustiveSearch, search_bank
from hoarfrost.reconstruct.backprojection import BackProjection
from hoarfrost.reconstruct.half_maps import small_box
from hoarfrost.reconstruct.settings import AbInitioConfig
from hoarfrost.representations.voxel import FourierVolume
from hoarfrost.types import Optics, Volume

NAME = "kernels"

BARS = {"search_of_peak": 0.5, "gauss_newton_times_pytorch": 4.0}

Work = tuple[Callable[[], object], int, float]
"""A call, the images it works on, and its 10^12 operations where they are counted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if a bar is missed."""
    made = parser(__doc__)
    made.add_argument("--box", type=int, default=128)
    made.add_argument("--seconds", type=float, default=6.0, help="time given to each kernel")
    options = made.parse_args(arguments)
    if options.quick:
        vars(options).update({"box": 32, "seconds": 0.02})
    if library() is None:
        print(f"{NAME}: skipped, the kernels were not compiled here or are switched off")
        return 0
    use_threads(options.threads)
    record = Record.open(NAME, options, BARS)
    rows = [
        record.done(key) or record.add(key, _measure(make(options.box), options.seconds))
        for name, make in (("search", _search), ("gauss_newton", _gauss_newton), ("insertion", _insertion))
        if (key := {"kernel": name, "box": options.box, "threads": options.threads, "set": instruction_set()})
    ]
    record.write()
    return exit_code(_report(rows), options)


@contextmanager
def without_kernels() -> Iterator[None]:
    """Let PyTorch do the work of the kernels."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "off"
    library.cache_clear()
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
        library.cache_clear()


def _measure(work: Work, seconds: float) -> Row:
    call, images, operations = work
    call()
    compiled = pytorch = float("inf")
    peak, began = 0.0, time.perf_counter()
    while time.perf_counter() - began < seconds or pytorch == float("inf"):
        peak = max(peak, integer_product_rate(min(0.2, seconds)) or 0.0)
        compiled = min(compiled, *(_seconds(call) for _ in range(3)))
        with without_kernels():
            pytorch = min(pytorch, _seconds(call))
    return {
        "images_s": images / compiled,
        "pytorch_images_s": images / pytorch,
        "times_pytorch": pytorch / compiled,
        "tera_operations_s": operations / compiled or None,
        "peak_tera_operations_s": peak / 1e12,
        "of_peak": 1e12 * operations / compiled / peak if operations else None,
    }


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _search(box: int) -> Work:
    """One batch of a start at its last band, slices made before."""
    config = AbInitioConfig.from_preset()
    limit = min(config.start_limit, (box - 1) // 2)
    images, shifts = _noise_images(box, limit, 512), shift_grid(config.shift_extent * box, config.shift_count)
    weight = torch.ones(len(images.band))
    bank = ExhaustiveSearch(OrientationGrid(2), shifts, weight).bank(_noise_density(box, limit), images.band)
    operations = search_teraflop(len(images), len(shifts), bank)
    return lambda: search_bank(images, bank, shifts, weight, 16), len(images), operations


def _gauss_newton(box: int) -> Work:
    """Three iterations on every pose at the last level."""
    limit = min(32, (box - 1) // 2)
    images, density = _noise_images(box, limit, 128), _noise_density(box, limit)
    rotations, shifts = random_rotations(len(images), torch.Generator().manual_seed(2)), torch.zeros(len(images), 2)
    estimator = GaussNewton(torch.ones(len(images.band)), iterations=3)
    return lambda: estimator.refine(images, density, rotations, shifts), len(images), 0.0


def _insertion(box: int) -> Work:
    """Images put into the sums of a map at the last level."""
    limit = min(32, (box - 1) // 2)
    images = _noise_images(box, limit, 256)
    rotations, shifts = random_rotations(len(images), torch.Generator().manual_seed(2)), torch.zeros(len(images), 2)
    sums = BackProjection.empty(SliceGrid(small_box(box, limit), limit), torch.device("cpu"))
    return lambda: sums.add(images, rotations, shifts), len(images), 0.0


def _noise_images(box: int, limit: int, count: int) -> BandImages:
    """Noise with the transfer functions of a defocus series."""
    generator = torch.Generator().manual_seed(0)
    band = Band(box, limit)
    vectors = torch.randn(count, len(band), dtype=torch.complex64, generator=generator)
    defocus = 8000 + 17000 * torch.rand(count, generator=generator, dtype=torch.float64)
    optics = Optics.uniform(count, pixel_size=2.0).replace(defocus_u=defocus, defocus_v=defocus - 200)
    return BandImages(band, vectors, contrast_transfer_function(optics, band.frequency))


def _noise_density(box: int, limit: int) -> FourierVolume:
    small = small_box(box, limit)
    volume = torch.randn(small, small, small, generator=torch.Generator().manual_seed(1))
    return FourierVolume.from_volume(Volume(volume, 2.0 * box / small), limit)


def _report(rows: Sequence[Row]) -> bool:
    show(
        f"{NAME}: {instruction_set()}",
        [
            {
                "kernel": row["key"]["kernel"],
                "images/s": row["images_s"],
                "PyTorch": row["pytorch_images_s"],
                "times": row["times_pytorch"],
                "1e12 op/s": row["tera_operations_s"],
                "peak": row["peak_tera_operations_s"],
                "of peak": row["of_peak"],
            }
            for row in rows
        ],
    )
    search, gauss_newton = rows[0], rows[1]
    missed = []
    if search["of_peak"] < BARS["search_of_peak"]:
        missed.append(f"search at {100 * search['of_peak']:.0f} % of the peak")
    if gauss_newton["times_pytorch"] < BARS["gauss_newton_times_pytorch"]:
        missed.append(f"Gauss-Newton {gauss_newton['times_pytorch']:.1f}x PyTorch")
    print("short: " + "; ".join(missed) if missed else "PASS")
    return not missed


if __name__ == "__main__":
    sys.exit(main())
