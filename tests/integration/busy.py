"""Threads that ask a pool one question all the time, while its servers are treated badly."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tests.integration.same_answers import query_of
from trainer.teacher.pool import Pool
from trainer.teacher.protocol import Query


class Busy:
    """Every answer must be the right one."""

    def __init__(self, pool: Pool, threads: int = 4, query: Query | None = None) -> None:
        self._pool, self._threads = pool, threads
        self._query = query or query_of(pool.description, 0, 0)
        self._right = pool.score(self._query).log_probs
        self._stop = threading.Event()
        self.answers = 0

    def __enter__(self) -> Busy:
        self._executor = ThreadPoolExecutor(self._threads)
        self._loops = [self._executor.submit(self._loop) for _ in range(self._threads)]
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self._stop.set()
        self._executor.shutdown()
        for loop in self._loops:
            loop.result()

    def until(self, true: Callable[[], bool], seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"it did not happen; {self._pool.stats()}"
            for loop in self._loops:
                assert not loop.done(), loop.result()
            time.sleep(0.01)

    def more(self, count: int = 20) -> None:
        """Waits for so many further answers."""
        enough = self.answers + count
        self.until(lambda: self.answers >= enough)

    def _loop(self) -> None:
        while not self._stop.is_set():
            np.testing.assert_allclose(self._pool.score(self._query).log_probs, self._right, atol=1e-5)
            self.answers += 1


def calls(pool: Pool, target: str) -> int:
    return pool.stats().endpoints[target]["calls"]
