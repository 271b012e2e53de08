"""What a model has done so far, as the Open Inference Protocol's statistics count it.

An inference is one scored position, so `inference_count / execution_count` is how many positions a batch holds.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from teacher_server.reports import BatchReport, RequestReport


class ModelStatistics:
    """Counts that only grow, fed by the service's and the batcher's reports, in the event loop."""

    def __init__(self) -> None:
        self._last_ms = 0  # of the last good answer, since 1970
        self._positions = 0  # answered
        self._counts: Counter[str] = Counter()  # of success, fail, queue, compute_infer
        self._ns: Counter[str] = Counter()  # the same
        self._batches: dict[int, tuple[int, int]] = {}  # positions, rounded up to a power of two -> batches, ns

    def on_request(self, report: RequestReport) -> None:
        """Count a request that has ended."""
        if report.outcome != "ok":
            self._add("fail", report.total_s)
            return
        self._last_ms = time.time_ns() // 1_000_000
        self._positions += report.positions
        for name, seconds in (
            ("success", report.total_s),
            ("queue", report.queue_s),
            ("compute_infer", report.compute_s),
        ):
            self._add(name, seconds)

    def on_batch(self, report: BatchReport) -> None:
        """Count a batch that was computed."""
        size = 1 << max(report.positions - 1, 0).bit_length()
        batches, ns = self._batches.get(size, (0, 0))
        self._batches[size] = batches + 1, ns + _ns(report.seconds)

    def of(self, name: str, version: str) -> dict[str, Any]:
        """The statistics in the protocol's JSON form."""
        return {
            "name": name,
            "version": version,
            "last_inference": self._last_ms,
            "inference_count": self._positions,
            "execution_count": sum(batches for batches, _ in self._batches.values()),
            "inference_stats": {
                kind: {"count": self._counts[kind], "ns": self._ns[kind]}
                for kind in ("success", "fail", "queue", "compute_infer")
            },
            "batch_stats": [
                {"batch_size": size, "compute_infer": {"count": batches, "ns": ns}}
                for size, (batches, ns) in sorted(self._batches.items())
            ],
        }

    def _add(self, kind: str, seconds: float) -> None:
        self._counts[kind] += 1
        self._ns[kind] += _ns(seconds)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
