"""The most that the processor can do, measured: what a kernel's own rate is held against."""

from __future__ import annotations

import ctypes
import time

import torch

from hoarfrost.kernels.library import library
from hoarfrost.kernels.threads import map_parts


def integer_product_rate(seconds: float = 0.2) -> float | None:
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
