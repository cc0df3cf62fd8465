"""What this machine can do at most, so that a run can say which fraction of it was reached."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext

import torch


def matrix_product_rate(
    size: int = 2048,
    *,
    precision: AbstractContextManager[None] | None = None,
    device: torch.device | None = None,
    seconds: float = 0.3,
) -> float:
    """Operations per second of square float32 matrix products, the best of as many as fit into ``seconds``.

    ``precision`` is a context under which the products run, such as the one that lets them multiply in bfloat16.
    """
    first, second = (torch.randn(size, size, device=device) for _ in range(2))
    best, began = float("inf"), time.perf_counter()
    with precision or nullcontext():
        first @ second
        while time.perf_counter() - began < seconds or best == float("inf"):
            start = time.perf_counter()
            product = first @ second
            if product.is_cuda:
                torch.cuda.synchronize(product.device)
            best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
