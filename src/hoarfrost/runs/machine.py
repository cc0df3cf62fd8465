"""The machine that a run is on: what it is, and how much memory the process took."""

from __future__ import annotations

import os
import platform
import resource
import sys
from pathlib import Path
from typing import Any

import torch

from hoarfrost.errors import InputError
from hoarfrost.kernels.library import instruction_set


def describe_machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory, GPUs, and the libraries that set the speed."""
    return {
        "processor": _processor(),
        "kernels": instruction_set() or "none",
        "cores": available_cores(),
        "memory_bytes": total_memory(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def total_memory() -> int:
    """Bytes of memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_memory() -> int:
    """Bytes that could be had without swapping; the whole where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return total_memory()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), total_memory())


def peak_memory() -> int:
    """Most bytes that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def compute_device(name: str) -> torch.device:
    """The device that a user names.

    Raises
    ------
    InputError
        If the name means nothing to PyTorch, or the device is not there.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: there is no such device here; try cpu") from error
    return device
