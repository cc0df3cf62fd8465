"""The most that the processor can do, measured, and what the compiled search reaches of it."""

from __future__ import annotations

import ctypes
import time

import torch

from hoarfrost.kernels.library import library
from hoarfrost.kernels.search import PackedSlices, best_poses, search_is_compiled
from hoarfrost.kernels.threads import map_parts


def integer_product_rate(seconds: float = 0.1) -> float | None:
    """Operations per second of 8-bit integer products that never leave the registers, on all threads together.

    None without kernels.
    """
    loaded = library()
    if loaded is None:
        return None
    rounds = 2_000_000
    threads = torch.get_num_threads()

    def run(_: int) -> int:
        return int(loaded.hoarfrost_integer_products(ctypes.c_int64(rounds)))

    best, began = 0.0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        operations = sum(map_parts(run, range(threads), torch.device("cpu")))
        best = max(best, rounds * operations / (time.perf_counter() - start))
    return best


def search_rate(seconds: float = 0.3, coefficients: int = 308) -> float | None:
    """Operations per second of the compiled search, at the size of one batch of an ab initio start.

    None where the search does not run compiled.
    """
    generator = torch.Generator().manual_seed(0)
    data, slices, phases = (
        torch.randn(count, coefficients, dtype=torch.complex64, generator=generator) for count in (512, 2304, 45)
    )
    if not search_is_compiled(data):
        return None
    phases, power, norms = phases / phases.abs(), torch.ones(data.shape), torch.zeros(len(data), len(slices))
    packed = PackedSlices.of(slices)
    operations = 4 * len(data) * len(slices) * len(phases) * coefficients
    best, began = 0.0, time.perf_counter()
    while time.perf_counter() - began < seconds or best == 0:
        start = time.perf_counter()
        best_poses(data, power, phases, norms, packed, 16)
        best = max(best, operations / (time.perf_counter() - start))
    return best
