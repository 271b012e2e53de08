"""What is said, once for all threads, while nobody answers; and how long one waited in all."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

REMIND_S = 30.0


def tell(text: str) -> None:
    """A line on stderr, above a progress bar where there is one."""
    tqdm.write(f"trainer: {text}", file=sys.stderr)


class Outage:
    """Begins with the first caller that waits and ends with the next answer. Thread-safe."""

    def __init__(self, say: Callable[[str], None] = tell) -> None:
        self._say, self._lock = say, threading.Lock()
        self._waiting, self._since = 0, 0.0
        self._waited_s = 0.0
        self._began: float | None = None
        self._said: float | None = None

    @property
    def waited_s(self) -> float:
        """Seconds in which at least one caller waited."""
        with self._lock:
            return self._waited_s + (time.monotonic() - self._since if self._waiting else 0.0)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Somebody waits for the time of a `with`."""
        with self._lock:
            now = time.monotonic()
            if not self._waiting:
                self._since = now
            self._began = self._began or now
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                if not self._waiting:
                    self._waited_s += time.monotonic() - self._since

    def remark(self, why: Callable[[], str], limit_s: float, *, at_once: bool) -> None:
        """Says that one waits, `at_once` or when it has taken a while, and again every REMIND_S."""
        with self._lock:
            now = time.monotonic()
            began = self._began or now
            if now - (self._said or began) < REMIND_S and not (at_once and self._said is None):
                return
            far = f" for {now - began:.0f} s" if self._said else ""
            self._said = now
        self._say(f"{why()}; waiting{far} (limit {limit_s:.0f} s)")

    def over(self) -> None:
        """Somebody answered."""
        if self._began is None:  # the usual case, without the lock
            return
        with self._lock:
            began, said = self._began, self._said
            self._began = self._said = None
        if began is not None and said is not None:
            self._say(f"a teacher answers again after {time.monotonic() - began:.0f} s")
