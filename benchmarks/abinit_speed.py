"""Time and memory of ``hoarfrost abinit`` from file to report, by the number of particles, and of its inner functions.

The rates of the functions are measured in one process with this machine's matrix-product rates, at the sizes that a
run has them.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from benchmarks.common import Record, Row, exit_code, hoarfrost, parser, run_figures, show, simulated, use_threads
from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.geometry.shift_grid import shift_grid
from hoarfrost.geometry.so3_grid import OrientationGrid
from hoarfrost.physics.ctf import contrast_transfer_function
from hoarfrost.poses.gauss_newton import POINTS_AT_ONCE, normal_equations
from hoarfrost.poses.likelihood import best_over_shifts, fast_matrix_products, search_teraflop, weighted_data
from hoarfrost.poses.search import ExhaustiveSearch
from hoarfrost.reconstruct.half_maps import small_box
from hoarfrost.reconstruct.settings import AbInitioConfig
from hoarfrost.representations.voxel import FourierVolume
from hoarfrost.types import Optics, Volume

NAME = "abinit_speed"

BARS = {"wall_s_at_10000": 120.0, "peak_mb": 4000.0, "growth_with_5x_particles": 0.10}
BAR_PARTICLES = 10_000

REST = "start-up, preflight, validation, report"
"""What of the wall time lies outside the stages."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print all; 1 if a bar is missed."""
    made = parser(__doc__)
    made.add_argument("--particles", type=int, nargs="+", default=[2_000, 10_000, 50_000])
    made.add_argument("--box", type=int, default=128)
    made.add_argument("--snr", type=float, default=0.1)
    made.add_argument("--preset", default="default")
    made.add_argument("--model", default="builtin", help="what is simulated: a file, or builtin")
    made.add_argument("--seconds", type=float, default=2.0, help="time given to each function")
    options = made.parse_args(arguments)
    if options.quick:
        vars(options).update({"particles": [300], "box": 40, "snr": 1.0, "preset": "fast", "seconds": 0.02})
    record = Record.open(NAME, options, BARS)
    rows = [_row(record, options, count) for count in options.particles]
    use_threads(options.threads)
    record.figures = {"rates": rates(options.box, options.seconds), "growth": growth(rows)}
    record.write()
    return exit_code(report(record, rows), options)


def _row(record: Record, options: argparse.Namespace, count: int) -> Row:
    key = {
        "model": Path(options.model).name,
        "particles": count,
        "box": options.box,
        "snr": options.snr,
        "preset": options.preset,
        "threads": options.threads,
    }
    done = record.done(key)
    if done is not None:
        return done
    print(f"{count:,} particles ...", flush=True)
    return record.add(key, measure(options.model, key))


def measure(model: str, key: Row) -> Row:
    """Simulate a stack, and measure the run on it; nothing is left behind."""
    with tempfile.TemporaryDirectory(prefix="hoarfrost-bench-") as scratch:
        stack, run = Path(scratch) / "stack", Path(scratch) / "run"
        made = simulated(
            stack, model, n=key["particles"], box=key["box"], snr=key["snr"], shift=10 * key["box"] / 128, seed=0
        )
        done = hoarfrost(
            "abinit", stack / "particles.star", "-o", run,
            "--seed", 0, "--preset", key["preset"], "--threads", key["threads"],
        )  # fmt: skip
        if done.code != 0:
            return {"failed": done.last_line} | done.cost
        return done.cost | {"simulation_s": round(made.wall_s, 2)} | run_figures(run)


def growth(rows: Sequence[Row]) -> Row:
    """Peak memory with more particles relative to the size before, less one."""
    pairs = itertools.pairwise(rows)
    return {
        f"{small['key']['particles']} to {large['key']['particles']}": large["peak_mb"] / small["peak_mb"] - 1
        for small, large in pairs
    }


def rates(box: int, seconds: float) -> Row:
    """Rates of the functions that a run spends its time in, and of matrix products, in this process.

    Sizes are those of the default preset: the search at the last band of the starts, refinement at the last level.
    """
    config = AbInitioConfig.from_preset()
    peak = {
        "float32": _matrix_product_rate(torch.float32, seconds),
        "float32_lowered": _matrix_product_rate(torch.float32, seconds, fast_matrix_products()),
        "bfloat16": _matrix_product_rate(torch.bfloat16, seconds),
    }
    search = _search_rate(box, min(config.start_limit, (box - 1) // 2), config, seconds)
    fraction = {name: search["Tflop_s"] / rate for name, rate in peak.items()}
    points = _point_rates(box, min(max(config.levels), (box - 1) // 2), seconds)
    return {"matrix_product_Tflop_s": peak, "best_over_shifts": search | {"of_peak": fraction}, "points_s": points}


def _matrix_product_rate(
    dtype: torch.dtype, seconds: float, precision: AbstractContextManager[None] | None = None, size: int = 2048
) -> float:
    """10^12 operations a second of square matrix products; ``float32_lowered`` are those that the search uses."""
    first, second = (torch.randn(size, size).to(dtype) for _ in range(2))
    with precision or nullcontext():
        return 1e-12 * 2 * size**3 * _passes_a_second(lambda: first @ second, seconds)


def _search_rate(box: int, limit: int, config: AbInitioConfig, seconds: float) -> Row:
    images = noise_images(box, limit, 512)
    shifts = shift_grid(config.shift_extent * box, config.shift_count)
    weight = torch.ones(len(images.band))
    search = ExhaustiveSearch(OrientationGrid(2), shifts, weight)
    bank = search.bank(noise_density(box, limit), images.band)
    data, power = weighted_data(images, weight)
    phases = images.band.shift_phases(-shifts)
    passes = _passes_a_second(lambda: best_over_shifts(data, power, phases, bank), seconds)
    return {
        "limit": limit,
        "orientations": len(bank),
        "shifts": len(shifts),
        "coefficients": len(images.band),
        "images_s": passes * len(images),
        "Tflop_s": passes * search_teraflop(len(images), len(shifts), bank),
    }


def _point_rates(box: int, limit: int, seconds: float) -> Row:
    """Slice points a second in one batch of the refinement."""
    density = noise_density(box, limit)
    images = noise_images(box, limit, max(1, POINTS_AT_ONCE // len(Band(box, limit))))
    rotations = random_rotations(len(images), torch.Generator().manual_seed(2)).float()
    shifts, weight = torch.zeros(len(images), 2), torch.ones(len(images.band))
    grid = SliceGrid(small_box(box, limit), limit)
    points = grid.points(rotations, images.band)
    sums = torch.zeros(3, torch.Size(grid.shape).numel())
    count = len(images) * len(images.band)
    work: dict[str, Callable[[], object]] = {
        "normal_equations": lambda: normal_equations(images, density, rotations, shifts, weight),
        "extract": lambda: density.project(rotations, images.band),
        "insert": lambda: grid.insert(sums, points, images.vectors, images.transfer),
    }
    return {"limit": limit} | {name: count * _passes_a_second(call, seconds) for name, call in work.items()}


def noise_images(box: int, limit: int, count: int) -> BandImages:
    """Noise with the transfer functions of a defocus series."""
    generator = torch.Generator().manual_seed(0)
    band = Band(box, limit)
    vectors = torch.randn(count, len(band), dtype=torch.complex64, generator=generator)
    defocus = 8000 + 17000 * torch.rand(count, generator=generator, dtype=torch.float64)
    optics = Optics.uniform(count, pixel_size=2.0).replace(defocus_u=defocus, defocus_v=defocus - 200)
    return BandImages(band, vectors, contrast_transfer_function(optics, band.frequency))


def noise_density(box: int, limit: int) -> FourierVolume:
    small = small_box(box, limit)
    volume = torch.randn(small, small, small, generator=torch.Generator().manual_seed(1))
    return FourierVolume.from_volume(Volume(volume, 2.0 * box / small), limit)


def _passes_a_second(call: Callable[[], object], seconds: float) -> float:
    """The best of repeated calls, after one to warm up."""
    call()
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < seconds or best == float("inf"):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return 1 / best


def report(record: Record, rows: Sequence[Row]) -> bool:
    """Print the tables; whether all bars are met."""
    show(NAME, [_line(record, row) for row in rows])
    stages = [*dict.fromkeys(stage for row in rows for stage in row.get("stages", {})), REST]
    share = [
        {"stage": stage} | {f"{row['key']['particles']:,}": _share(row, stage) for row in rows} for stage in stages
    ]
    show("share of the wall time, %", share)
    figures = record.figures["rates"]
    search, peak = figures["best_over_shifts"], figures["matrix_product_Tflop_s"]
    show(
        f"in one process: matrix products {peak['float32']:.3f} Tflop/s in float32, {peak['float32_lowered']:.3f} in "
        f"float32 multiplied in bfloat16, {peak['bfloat16']:.3f} in bfloat16",
        [
            {
                "function": "best_over_shifts",
                "rate": search["images_s"],
                "unit": "images/s",
                "Tflop/s": search["Tflop_s"],
                **{f"of {name.replace('_', ', ')}": value for name, value in search["of_peak"].items()},
            },
            *(
                {"function": name, "rate": figures["points_s"][name] / 1e6, "unit": "10^6 points/s"}
                for name in ("normal_equations", "extract", "insert")
            ),
        ],
    )
    for name, value in record.figures["growth"].items():
        print(f"peak memory from {name.replace(' to ', ' particles to ')}: {100 * value:+.1f} %")
    return _judge(rows)


def _judge(rows: Sequence[Row]) -> bool:
    """Hold the figures against the bars they are meant for."""
    by_size = {row["key"]["particles"]: row for row in rows if "failed" not in row}
    missed = [f"{row['key']['particles']:,} particles: {row['failed']}" for row in rows if "failed" in row]
    bar = by_size.get(BAR_PARTICLES)
    if bar is not None and bar["key"]["box"] == 128:
        if bar["wall_s"] > BARS["wall_s_at_10000"]:
            missed.append(f"wall time {bar['wall_s']:.0f} s > {BARS['wall_s_at_10000']:.0f} s")
        if bar["peak_mb"] > BARS["peak_mb"]:
            missed.append(f"peak memory {bar['peak_mb']:.0f} MB > {BARS['peak_mb']:.0f} MB")
        five = by_size.get(5 * BAR_PARTICLES)
        if five is not None and five["peak_mb"] > (1 + BARS["growth_with_5x_particles"]) * bar["peak_mb"]:
            missed.append(f"memory grows by {100 * (five['peak_mb'] / bar['peak_mb'] - 1):.0f} % with 5x the particles")
    print("short: " + "; ".join(missed) if missed else "PASS")
    return not missed


def _line(record: Record, row: Row) -> Row:
    reached = row.get("throughput", {})
    return {
        "particles": row["key"]["particles"],
        "wall s": row["wall_s"],
        "cpu s": row["cpu_s"],
        "load before": row["load"],
        "peak MB": round(row["peak_mb"]),
        "s / 1,000": 1000 * row["wall_s"] / row["key"]["particles"],
        "resolution Å": row.get("resolution"),
        "search Tflop/s": reached.get("search_tera_operations"),
        "of peak": reached.get("search_fraction_of_peak"),
        "code": "present" if record.is_current(row) else "older",
    }


def _share(row: Row, stage: str) -> float | None:
    stages = row.get("stages", {})
    seconds = row["wall_s"] - sum(stages.values()) if stage == REST else stages.get(stage)
    return None if seconds is None else round(100 * seconds / row["wall_s"], 1)


if __name__ == "__main__":
    sys.exit(main())
