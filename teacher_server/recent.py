"""The last two minutes, second by second, for the status page: bounded memory however many requests there are."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from teacher_server.reports import OK, BatchReport, RequestReport

WINDOW = 120  # seconds that are kept
RATE_SECONDS = 5  # over which a rate is called current
QUANTILE_SECONDS = 60
# Latencies of 0.1 ms to 100 s in steps of 5 %: a quantile is right to 2.5 %.
STEP = 1.05
BOUNDS = tuple(1e-4 * STEP**n for n in range(284))


@dataclass(eq=False)
class Second:
    """What ended within one second."""

    at: int  # of the clock
    requests: int = 0  # answered
    failed: int = 0
    positions: int = 0
    queue_s: float = 0.0  # that the answered requests waited, together
    compute_s: float = 0.0
    batches: int = 0
    batch_requests: int = 0
    row_tokens: int = 0
    tokens: int = 0
    padded: int = 0
    busy: float = 0.0  # seconds that the device computed
    latencies: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(BOUNDS) + 1, np.int64))


class Recent:
    """A ring of seconds. `clock`: seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: deque[Second] = deque(maxlen=WINDOW + 1)  # ascending; those without events are left out

    def request(self, report: RequestReport) -> None:
        second = self._current()
        if report.outcome != OK:
            second.failed += 1
            return
        second.requests += 1
        second.positions += report.positions
        second.queue_s += report.queue_s
        second.compute_s += report.compute_s
        second.latencies[bisect_left(BOUNDS, report.total_s)] += 1

    def batch(self, report: BatchReport) -> None:
        second = self._current()
        second.batches += 1
        second.batch_requests += report.requests
        second.row_tokens += report.row_tokens
        second.tokens += report.tokens
        second.padded += report.padded
        second.busy += report.seconds

    def series(self) -> list[Second]:
        """The last WINDOW whole seconds, oldest first, quiet ones included."""
        now = int(self._clock())
        known = {second.at: second for second in self._seconds}
        return [known.get(at) or Second(at) for at in range(now - WINDOW, now)]

    def _current(self) -> Second:
        now = int(self._clock())
        if not self._seconds or self._seconds[-1].at != now:
            self._seconds.append(Second(now))
        return self._seconds[-1]


def quantiles(seconds: Sequence[Second], shares: Sequence[float]) -> list[float | None]:
    """Latency, in seconds, below which each share of the answered requests lies; None where there were none."""
    return _quantiles(np.sum([second.latencies for second in seconds], axis=0, keepdims=True), shares)[0]


def quantiles_by_second(seconds: Sequence[Second], shares: Sequence[float]) -> list[list[float | None]]:
    """The same of each second by itself: one list a second."""
    return _quantiles(np.stack([second.latencies for second in seconds]), shares)


def busy_by_second(seconds: Sequence[Second]) -> list[float]:
    """Share of each second that the device computed: a batch counts in the seconds before its end, however long."""
    shares, ahead = [], 0.0
    for second in reversed(seconds):
        ahead += second.busy
        shares.append(min(ahead, 1.0))
        ahead -= shares[-1]
    return shares[::-1]


def _quantiles(counts: NDArray[np.int64], shares: Sequence[float]) -> list[list[float | None]]:
    """Of each row of counts [rows, len(BOUNDS) + 1] all quantiles."""
    ranks = counts.cumsum(axis=1)
    totals = ranks[:, -1:]
    places = (ranks[:, None, :] < (totals * np.array(shares))[:, :, None]).sum(axis=2)
    values = np.array(BOUNDS)[np.minimum(places, len(BOUNDS) - 1)] / STEP**0.5
    return [row if total else [None] * len(shares) for row, total in zip(values.tolist(), totals[:, 0], strict=True)]
