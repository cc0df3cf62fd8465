"""How the process waits, keeps memory and ends; all but the end must stand before PyTorch is loaded."""

from __future__ import annotations

import ctypes
import gc
import os

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
"""Parameters of ``mallopt``, of <malloc.h> of the GNU C library."""

LARGEST_KEPT = 32 << 20
"""Bytes of the largest blocks of memory that are kept when they are let go of: the most that the library allows."""

OBJECTS_BETWEEN = 50_000
"""New objects after which Python looks for garbage: the libraries make a million that stay, and going over them takes
a third of a second of a run where it happens as often as by default."""


def prepare_process() -> None:
    """Let threads wait without spinning, keep memory that is let go of for the next batch, and look for garbage seldom.

    Threads that spin slow each other down several times on cores shared with other work. Memory that goes back to the
    system between batches has to be cleared page by page when the next one asks for it: a tenth of the time of a run.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    gc.set_threshold(OBJECTS_BETWEEN)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return  # another C library, with its own ways
    # One heap for all threads, as only that one can keep large blocks.
    for parameter, value in (
        (_ARENA_MAX, 1),
        (_MMAP_THRESHOLD, LARGEST_KEPT),
        (_TRIM_THRESHOLD, 2**31 - 1),
        (_TOP_PAD, 2 * LARGEST_KEPT),
    ):
        mallopt(parameter, value)


def leave_memory_to_the_system() -> None:
    """Make an end of the process quick: Python takes down none of the present objects, which takes half a second."""
    gc.freeze()
