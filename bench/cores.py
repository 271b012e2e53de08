"""A core for each of two processes that would otherwise take each other's time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def apart(server: int) -> Iterator[None]:
    """A server, by its pid, keeps to the last core, and this process to the first until the block ends."""
    cores = sorted(os.sched_getaffinity(0))
    for task in Path(f"/proc/{server}/task").iterdir():
        os.sched_setaffinity(int(task.name), {cores[-1]})
    os.sched_setaffinity(0, {cores[0]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
