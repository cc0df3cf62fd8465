"""Many small pieces of work on all cores: one thread a piece instead of all threads on each.

A piece whose arrays fit into a core's cache is soon done, and threads that share it wait for one another longer than
they work. Python threads run side by side here, as PyTorch lets go of the interpreter while it computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


def map_parts(function: Callable[[Part], Result], parts: Sequence[Part], device: torch.device) -> list[Result]:
    """``function`` of every part, in order; on the CPU as many at a time as PyTorch has threads.

    What comes out does not depend on the number of threads, as no part knows of another.
    """
    workers = min(torch.get_num_threads(), len(parts)) if device.type == "cpu" else 1
    if workers <= 1:
        return [function(part) for part in parts]
    # The number of threads that PyTorch puts on one operation is each thread's own.
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(function, parts))


def in_parts(count: int, size: int) -> list[slice]:
    """Slices of ``size`` that together cover ``count`` rows."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
