"""What the server counts: the one store that `/metrics`, the status page and OIP's ModelStatistics read.

Plain numbers, changed in the event loop only. How Prometheus names them is in exposition.py.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from teacher_server.recent import Recent
from teacher_server.reports import OK, BatchReport, Observer, RequestReport, State

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
REQUESTS = tuple(float(2**n) for n in range(11))  # 1..1,024 requests in a batch
TOKENS = tuple(float(2**n) for n in range(6, 19))  # 64..262,144 tokens in a batch


class Distribution:
    """How often values fell into (bounds[i-1], bounds[i]], the last place being beyond all bounds, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.sum = tuple(bounds), [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True)
class Duration:
    """How many there were and how long they took together."""

    count: int
    seconds: float


class Metrics:
    """Hears of every request and every batch. `token_budget`: row tokens that a batch may hold now."""

    def __init__(self, token_budget: int = 0) -> None:
        self.started = time.time()  # Unix time
        self.recent = Recent()
        self.outcomes: Counter[str] = Counter()
        self.positions = 0  # of answered requests
        self.last_answer = 0.0  # Unix time; 0: none yet
        self.failed_seconds = 0.0
        self.request_s, self.queue_s, self.compute_s = (Distribution(SECONDS) for _ in range(3))  # successful ones
        self.rows = self.row_tokens = self.tokens = self.padded_tokens = 0
        self.batch_s = Distribution(SECONDS)
        self.batch_requests, self.batch_tokens = Distribution(REQUESTS), Distribution(TOKENS)
        self.batches: dict[int, Duration] = {}  # by scored positions, rounded up to a power of two
        self.token_budget = token_budget
        self.out_of_memory_count = self.watchdog_trips = 0

    def on_request(self, report: RequestReport) -> None:
        """A request has ended."""
        self.outcomes[report.outcome] += 1
        self.recent.request(report)
        if report.outcome != OK:
            self.failed_seconds += report.total_s
            return
        self.positions += report.positions
        self.last_answer = time.time()
        self.request_s.observe(report.total_s)
        self.queue_s.observe(report.queue_s)
        self.compute_s.observe(report.compute_s)

    def on_batch(self, report: BatchReport) -> None:
        """The device has computed a batch."""
        self.recent.batch(report)
        self.rows += report.rows
        self.row_tokens += report.row_tokens
        self.tokens += report.tokens
        self.padded_tokens += report.padded
        self.batch_s.observe(report.seconds)
        self.batch_requests.observe(report.requests)
        self.batch_tokens.observe(report.padded)
        size = 1 << max(report.positions - 1, 0).bit_length()
        seen = self.batches.get(size, Duration(0, 0.0))
        self.batches[size] = Duration(seen.count + 1, seen.seconds + report.seconds)

    def on_out_of_memory(self, token_budget: int) -> None:
        """The device ran out of memory, and batches may hold `token_budget` row tokens from now on."""
        self.out_of_memory_count += 1
        self.token_budget = token_budget

    def on_state(self, state: State) -> None:
        """The service has moved on; it is stuck when a batch exceeds its time limit."""
        self.watchdog_trips += state is State.STUCK

    @property
    def observer(self) -> Observer:
        """What hears for this store."""
        return Observer(self.on_request, self.on_batch, self.on_out_of_memory, self.on_state)

    @property
    def failures(self) -> int:
        return self.outcomes.total() - self.outcomes[OK]


def shares(row_tokens: int, tokens: int, padded: int) -> tuple[float, float]:
    """(padding among the computed tokens, tokens of rows that another row's computation answered), 0..1."""
    return (1 - tokens / padded if padded else 0.0), (1 - tokens / row_tokens if row_tokens else 0.0)
