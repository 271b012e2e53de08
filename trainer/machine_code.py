"""Loops that are compiled to machine code, once on a machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

ANY_ORDER = {"reassoc", "contract", "nsz"}  # of LLVM: sums in the order that suits the processor, NaN and inf kept


def compiled(loop: Callable[..., Any], *, any_order: bool = False) -> Callable[..., Any]:
    """Compiles a function at its first call, to run beside other threads, and keeps the code for later processes.

    It lies beside the source or, where that is read-only, in the user's cache folder; NUMBA_CACHE_DIR names another.
    With `any_order` sums may be taken in vectors: much faster, the same for the same numbers, not that of the source.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": ANY_ORDER if any_order else False}
    try:
        return njit(loop, cache=True, **options)
    except RuntimeError:  # no folder can be written: every process compiles anew
        return njit(loop, **options)
