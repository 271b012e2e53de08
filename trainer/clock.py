"""Seconds spent in each part of a run.

A device works behind the host's back: what a launch takes says nothing of it. There, events are put into the device's
queue around a part and read once the device has passed them, so that nobody waits for it on account of the clock.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch

ON_DEVICE = frozenset({"data_transfer", "hoser_forward", "backward_pass", "optimizer_step"})


class Event(Protocol):
    """A mark in a device's queue (`torch.cuda.Event`)."""

    def record(self) -> Any: ...

    def query(self) -> bool:
        """Whether the device has passed it."""
        ...

    def elapsed_time(self, later: Any) -> float:
        """Milliseconds to a later mark; both must have been passed."""
        ...


class Clock:
    """Adds up time by part: `with clock("backward_pass"): ...`; wall time, and device time for what a device does."""

    def __init__(self, new_event: Callable[[], Event] | None = None) -> None:
        """`new_event`: makes a mark for the device's queue; None where the host itself computes."""
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._new_event = new_event
        self._unread: deque[tuple[str, Event, Event]] = deque()

    @classmethod
    def of(cls, device: torch.device) -> Clock:
        return cls((lambda: torch.cuda.Event(enable_timing=True)) if device.type == "cuda" else None)

    @property
    def seconds(self) -> defaultdict[str, float]:
        """By part; of a device's parts only those that it has finished."""
        while self._unread and self._unread[0][2].query():
            part, begun, ended = self._unread.popleft()
            self._seconds[part] += begun.elapsed_time(ended) / 1000
        return self._seconds

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        if self._new_event and part in ON_DEVICE:
            with self._marked(part, self._new_event):
                yield
            return
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[part] += time.perf_counter() - start

    @contextmanager
    def _marked(self, part: str, new_event: Callable[[], Event]) -> Iterator[None]:
        begun, ended = new_event(), new_event()
        begun.record()
        try:
            yield
        finally:
            ended.record()
            self._unread.append((part, begun, ended))
