"""Finding and loading the compiled kernels."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

INTERFACE_VERSION = 1

INSTRUCTION_SETS = ("portable", "avx2", "avx512", "amx")
"""What the kernels are compiled for, the least demanding first."""

VARIABLE = "HOARFROST_KERNELS"
"""Environment variable: one of :data:`INSTRUCTION_SETS` as the highest to be used, or ``off``."""


@cache
def library() -> ctypes.CDLL | None:
    """The loaded kernels; None where they were not built, do not fit this version, or are switched off."""
    highest = os.environ.get(VARIABLE, INSTRUCTION_SETS[-1]).lower()
    found = find_spec("hoarfrost.kernels._native")
    if highest not in INSTRUCTION_SETS or found is None or found.origin is None:
        return None
    try:
        loaded = ctypes.CDLL(found.origin)
    except OSError:
        return None
    if loaded.hoarfrost_interface_version() != INTERFACE_VERSION:
        return None
    loaded.hoarfrost_integer_products.restype = ctypes.c_int64
    loaded.hoarfrost_search_checksum.restype = ctypes.c_int64
    loaded.hoarfrost_limit_instructions(INSTRUCTION_SETS.index(highest))
    return loaded


def instruction_set() -> str | None:
    """The instruction set in use; None without kernels."""
    loaded = library()
    return None if loaded is None else INSTRUCTION_SETS[loaded.hoarfrost_instructions()]


def missing_kernels() -> str | None:
    """One line for a user whose run has to do without the kernels; None where they are there."""
    if library() is not None:
        return None
    why = "switched off" if os.environ.get(VARIABLE, "").lower() == "off" else "not there"
    return f"compiled kernels are {why}: PyTorch does their work, several times slower (see `hoarfrost doctor`)"


def limit_instructions(highest: str) -> str:
    """Use nothing beyond this instruction set; the one in use from now on. For tests and benchmarks.

    Raises
    ------
    RuntimeError
        Where there are no kernels.
    """
    loaded = library()
    if loaded is None:
        raise RuntimeError("the compiled kernels are not there")
    loaded.hoarfrost_limit_instructions(INSTRUCTION_SETS.index(highest))
    return INSTRUCTION_SETS[loaded.hoarfrost_instructions()]


def compiled_for(*tensors: Tensor) -> bool:
    """Whether a kernel can work on these: there are kernels, and the numbers are float32 or complex64 in memory."""
    kinds = (torch.float32, torch.complex64)
    return library() is not None and all(one.device.type == "cpu" and one.dtype in kinds for one in tensors)


def pointer(tensor: Tensor, dtype: torch.dtype) -> ctypes.c_void_p:
    """Where a tensor's numbers begin, for a kernel. The tensor must outlive the call.

    Raises
    ------
    ValueError
        If the numbers are of another type, do not lie one after another, or are not in the computer's memory.
    """
    if tensor.dtype != dtype or not tensor.is_contiguous() or tensor.device.type != "cpu":
        raise ValueError(f"a kernel wants contiguous {dtype} in memory, not {tensor.dtype} on {tensor.device}")
    return ctypes.c_void_p(tensor.data_ptr())
