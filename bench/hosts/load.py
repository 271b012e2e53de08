"""A trainer's teacher under as many callers as are asked for, none of whom rests. Every answer must be the right one.

    python -m bench.hosts.load ADDRESS CALLERS

For each line on stdin it prints one: a JSON object with what was answered, what failed, and calls by endpoint. It
ends with stdin.
"""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import numpy as np

from tests.integration.same_answers import query_of, reach
from trainer.teacher.pool import Pool
from trainer.teacher.protocol import Query

HISTORIES = 5  # of a question


class Load:
    """What callers of one pool have seen."""

    def __init__(self, pool: Pool) -> None:
        self.answers, self.lost = 0, list[str]()
        self._pool, self._lock, self._over = pool, threading.Lock(), threading.Event()

    def call(self, query: Query, right: np.ndarray) -> None:
        while not self._over.is_set():
            try:
                np.testing.assert_allclose(self._pool.score(query).log_probs, right, atol=1e-5)
            except Exception as error:  # whatever it is, the request is lost
                self.lost.append(str(error))
                return
            with self._lock:
                self.answers += 1

    def told(self) -> str:
        stats = self._pool.stats()
        return json.dumps({"answers": self.answers, "lost": self.lost, **asdict(stats)})

    def end(self) -> None:
        self._over.set()


def main(address: str, callers: int) -> None:
    with reach(address, on_loss="fail", deadline_s=20.0) as pool, ThreadPoolExecutor(callers) as threads:
        query, load = query_of(pool.description, 0, 0, HISTORIES), Load(pool)
        right = pool.score(query).log_probs
        for _ in range(callers):
            threads.submit(load.call, query, right)
        for _ in sys.stdin:
            print(load.told(), flush=True)
        load.end()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
