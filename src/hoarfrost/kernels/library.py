"""Finding and loading the compiled kernels."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

INTERFACE_VERSION = 1
"""Goes up, here and in ``src/native/interface.cpp``, whenever the arguments of a function change."""

FUNCTIONS = (
    "add_gaussians",
    "arrange_slices",
    "fill_slab",
    "gaussian_moments",
    "harmonic_rows",
    "harmonic_sums",
    "insertion_sizes",
    "instructions",
    "integer_products",
    "limit_instructions",
    "log_likelihood",
    "normal_equations",
    "normalise_images",
    "pack_slices",
    "pick_coefficients",
    "read_points",
    "refine_poses",
    "search",
    "search_checksum",
    "spread_images",
)
"""What the kernels must offer, each under the name ``hoarfrost_...``."""

INSTRUCTION_SETS = ("portable", "avx2", "avx512", "amx")
"""What the kernels are compiled for, the least demanding first."""

VARIABLE = "HOARFROST_KERNELS"
"""Environment variable: one of :data:`INSTRUCTION_SETS` as the highest to be used, or ``off``."""


OTHER_VERSION = "of another version than this source (build them again: pip install --no-deps -e .)"


@cache
def library() -> ctypes.CDLL | None:
    """The loaded kernels; None where they were not built, do not fit this version, or are switched off."""
    found = _load()
    return found if isinstance(found, ctypes.CDLL) else None


def _load() -> ctypes.CDLL | str:
    """The kernels, or what is the matter with them."""
    highest = os.environ.get(VARIABLE, INSTRUCTION_SETS[-1]).lower()
    if highest not in INSTRUCTION_SETS:
        return "switched off"
    found = find_spec("hoarfrost.kernels._native")
    if found is None or found.origin is None:
        return "not there"
    loaded = fitting(found.origin)
    if isinstance(loaded, ctypes.CDLL):
        loaded.hoarfrost_integer_products.restype = ctypes.c_int64
        loaded.hoarfrost_search_checksum.restype = ctypes.c_int64
        loaded.hoarfrost_limit_instructions(INSTRUCTION_SETS.index(highest))
    return loaded


def fitting(path: str) -> ctypes.CDLL | str:
    """The library in a file, or why it will not do: sources may be newer than what was compiled of them."""
    try:
        loaded = ctypes.CDLL(path)
    except OSError as error:
        return f"not to be loaded ({error})"
    names = ("interface_version", *FUNCTIONS)
    if not all(hasattr(loaded, f"hoarfrost_{name}") for name in names):
        return OTHER_VERSION
    return loaded if loaded.hoarfrost_interface_version() == INTERFACE_VERSION else OTHER_VERSION


def instruction_set() -> str | None:
    """The instruction set in use; None without kernels."""
    loaded = library()
    return None if loaded is None else INSTRUCTION_SETS[loaded.hoarfrost_instructions()]


def missing_kernels() -> str | None:
    """One line for a user whose run has to do without the kernels; None where they are there."""
    if library() is not None:
        return None
    return f"compiled kernels are {_load()}: PyTorch does their work, several times slower (see `hoarfrost doctor`)"


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
