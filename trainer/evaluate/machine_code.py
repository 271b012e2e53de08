"""Loops that are compiled to machine code, once on a machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function at its first call, to run beside other threads, and keeps the code for later processes.

    It lies beside the source or, where that is read-only, in the user's cache folder; NUMBA_CACHE_DIR names another.
    """
    try:
        return njit(loop, nogil=True, cache=True)
    except RuntimeError:  # no folder can be written: every process compiles anew
        return njit(loop, nogil=True)
