"""What a load generator has seen: times of answered requests, and the others by status."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


class Tally:
    """Counts requests that were due at `begins` (of perf_counter) or later; those before are the warm-up's."""

    def __init__(self, begins: float) -> None:
        self.latencies, self.queued, self.computed = array("d"), array("d"), array("d")  # seconds
        self.errors: Counter[str] = Counter()
        self._details: dict[str, str] = {}  # of the first error of each status
        self.positions = 0
        self._begins = self._ended = begins

    def answered(self, due: float, positions: int, queue_us: int, compute_us: int) -> None:
        """An answer is here; it counts from when the request was due."""
        if due >= self._begins:
            self._ended = time.perf_counter()
            self.positions += positions
            self.latencies.append(self._ended - due)
            self.queued.append(queue_us / 1e6)
            self.computed.append(compute_us / 1e6)

    def failed(self, due: float, status: str, details: str) -> None:
        """A request has ended without an answer."""
        if due >= self._begins:
            self._ended = time.perf_counter()
            self.errors[status] += 1
            self._details.setdefault(status, details)

    @property
    def seconds(self) -> float:
        """From the start of counting until the last request that ended."""
        return self._ended - self._begins

    def summary(self, latest: int = 0) -> dict[str, Any]:
        """Rates over all of the time; percentiles, in milliseconds, of the `latest` answered requests (0: of all)."""
        seconds = max(self.seconds, 1e-9)
        return {
            "seconds": round(self.seconds, 3),
            "requests": len(self.latencies),
            "requests_per_s": round(len(self.latencies) / seconds, 1),
            "positions_per_s": round(self.positions / seconds, 1),
            "latency_ms": percentiles(self.latencies[-latest:]),
            "queue_ms": percentiles(self.queued[-latest:]),
            "compute_ms": percentiles(self.computed[-latest:]),
            "errors": [
                {"status": status, "count": count, "first": self._details[status]}
                for status, count in self.errors.most_common()
            ],
        }


def percentiles(seconds: Sequence[float]) -> dict[str, float] | None:
    """Mean, p50, p90, p95, p99 and maximum in milliseconds; None of nothing."""
    if not len(seconds):
        return None
    values = np.sort(np.asarray(seconds)) * 1000
    # The smallest value that so large a share does not exceed: one that was measured, not one in between.
    found = {name: values[int(np.ceil(share * len(values))) - 1] for name, share in SHARES.items()}
    return {name: round(float(value), 3) for name, value in {"mean": values.mean(), **found, "max": values[-1]}.items()}
