"""A load: callers who each wait for their answer (closed loop), or arrivals that wait for nobody (open loop).

In an open loop a request's latency counts from when it was due, not from when the generator came to send it: a server
that stalls is charged for everybody who would have come in the meantime (no coordinated omission).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from time import perf_counter

import numpy as np

from teacher_server.loadgen.doors import Door, Refused
from teacher_server.loadgen.tally import Tally

MOST_AT_ONCE = 10_000  # open requests; arrivals beyond are not sent, and counted as errors
NOT_SENT = "NOT_SENT"
PAUSE_SECONDS = 0.01  # of a caller in a closed loop whose request failed


@dataclass(frozen=True)
class Load:
    """How hard, how long. Times are seconds."""

    callers: int = 8  # of a closed loop
    rate: float | None = None  # requests a second of an open loop, Poisson arrivals; None: a closed loop
    duration: float = 10.0  # that is measured
    warm_up: float = 1.0  # before it, not counted
    timeout: float = 60.0  # of one request
    seed: int = 0


class Drive:
    """One load on one server. `positions`: of every message."""

    def __init__(self, door: Door, messages: Sequence[bytes], positions: int, load: Load) -> None:
        self._door, self._messages, self._positions, self._load = door, cycle(messages), positions, load
        self._begins = perf_counter()
        self._ends = self._begins + load.warm_up + load.duration
        self.tally = Tally(self._begins + load.warm_up)

    async def run(self) -> None:
        """Send until the time is over, and wait for the answers. Cancelled, it abandons what is open."""
        async with asyncio.TaskGroup() as tasks:
            if self._load.rate is None:
                for _ in range(self._load.callers):
                    tasks.create_task(self._call_again_and_again())
            else:
                await self._arrive(tasks, self._load.rate)

    async def _call_again_and_again(self) -> None:
        while (now := perf_counter()) < self._ends:
            if not await self._ask(now):
                await asyncio.sleep(PAUSE_SECONDS)

    async def _arrive(self, tasks: asyncio.TaskGroup, rate: float) -> None:
        open_requests: set[asyncio.Task[bool]] = set()
        for due in self._arrivals(rate):
            await asyncio.sleep(max(due - perf_counter(), 0))
            if len(open_requests) >= MOST_AT_ONCE:
                self.tally.failed(due, NOT_SENT, f"{MOST_AT_ONCE} requests are open")
                continue
            task = tasks.create_task(self._ask(due))
            open_requests.add(task)
            task.add_done_callback(open_requests.discard)

    def _arrivals(self, rate: float) -> Iterator[float]:
        random, due = np.random.default_rng(self._load.seed), self._begins
        while (due := due + random.exponential(1 / rate)) < self._ends:
            yield due

    async def _ask(self, due: float) -> bool:
        """Whether there was an answer."""
        try:
            queue_us, compute_us = await self._door.ask(next(self._messages), self._load.timeout)
        except Refused as refusal:
            self.tally.failed(due, refusal.status, str(refusal))
            return False
        self.tally.answered(due, self._positions, queue_us, compute_us)
        return True
