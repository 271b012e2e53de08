"""Endpoints without a wire: what a pool sees of teachers that fail, refuse, freeze or are replaced."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from trainer.grid import Grid
from trainer.teacher.endpoint import EndpointError, Trouble
from trainer.teacher.places import Place
from trainer.teacher.pool import Patience, Pool
from trainer.teacher.protocol import Answer, Description, Likelihoods, Limits, Query, TripQuery

GRID = Grid(min_lat=0, max_lat=1, min_lng=0, max_lng=1, cell_lat=0.4, cell_lng=0.4, rows=3, columns=3)
LIMITS = Limits(10, 100, 100, 100, 1000, 100_000)
TEACHER = Description("d" * 64, 12, 9, 9, 10, 11, 8, GRID, "float32", LIMITS)
LOST = EndpointError(Trouble.LOST, "UNAVAILABLE: connection refused")
A, B, C = "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"


def query_of(histories: int = 1) -> Query:
    ones = np.ones(histories, np.int64)
    return Query(np.zeros(histories, np.int32), ones, ones, 0, np.arange(2 * histories, dtype=np.int32) % 9, 2 * ones)


@dataclass
class FakeTeacher:
    """Answers -1 for every candidate, unless told otherwise."""

    description: Description = TEACHER
    down: EndpointError | None = None  # what every call meets
    plan: list[Exception | None] = field(default_factory=list)  # what the next questions meet
    gate: threading.Event | None = None  # questions wait for it
    asked: int = 0
    described: int = 0
    closed: threading.Event = field(default_factory=threading.Event)
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))  # one for every question

    def describe(self, timeout: float, digest: str = "") -> Description:
        self.described += 1
        self._check()
        return self.description

    def score(self, query: Query, timeout: float) -> Answer:
        self._ask()
        return Answer(np.full(len(query.candidates), -1, np.float32), 0)

    def likelihood(self, query: TripQuery, timeout: float) -> Likelihoods:
        """-1 for every token."""
        self._ask()
        return Likelihoods(-1.0 - query.lengths, query.lengths + 1, 0)

    def _ask(self) -> None:
        self.asked += 1
        meets = self.plan.pop(0) if self.plan else None
        self.entered.release()
        while self.gate and not self.gate.wait(0.005):
            self._check()
        self._check()
        if meets:
            raise meets

    def close(self) -> None:
        self.closed.set()

    def other(self, digest: str = "e" * 64, compute_type: str = "float32") -> None:
        """Another teacher stands here from now on: it refuses what is meant for the one before."""
        self.description = replace(TEACHER, digest=digest, compute_type=compute_type)
        self.plan = [EndpointError(Trouble.OTHER, f"the request is for {'d' * 64}, but this is {digest}")] * 1000

    def _check(self) -> None:
        if self.closed.is_set():
            raise EndpointError(Trouble.LOST, "CANCELLED: channel closed")
        if self.down:
            raise self.down


class Cast:
    """Fakes by their target, and what the pool says aloud."""

    def __init__(self, *targets: str) -> None:
        self.targets: Sequence[str] = targets or (A, B)
        self.fakes = {target: FakeTeacher() for target in self.targets}
        self.said: list[str] = []

    def __getitem__(self, target: str) -> FakeTeacher:
        return self.fakes[target]

    def connect(self, place: Place) -> FakeTeacher:
        fake = self.fakes.setdefault(place.target, FakeTeacher())
        fake.closed.clear()
        return fake

    def pool(self, patience: Patience | None = None, **how: object) -> Pool:
        return Pool(self.targets, self.connect, patience, say=self.said.append, **how)  # type: ignore[arg-type]


FAIL, WAIT = Patience(on_loss="fail", connect_s=0.3), Patience(connect_s=0.3)


class Asking:
    """Asks in threads of its own."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads

    def __call__(self, pool: Pool) -> Future[Answer]:
        return self._threads.submit(pool.score, query_of())


def eventually(true: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


def ready(pool: Pool, *targets: str) -> None:
    """Waits until the named ones may be asked."""
    members = pool._members
    eventually(lambda: all(m.state.value == "ready" for m in members._all.values() if m.name in targets))
