"""Work of the event loop that may be large: done in a thread where other callers would feel it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LARGE = 262_144  # bytes; less is read or written in well under a millisecond, about what a thread costs


async def offloaded(size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`function`'s result, computed in a thread if it works on `size` bytes or more than LARGE."""
    if size > LARGE:
        return await asyncio.to_thread(function, *args, **kwargs)
    return function(*args, **kwargs)
