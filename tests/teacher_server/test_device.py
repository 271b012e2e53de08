"""Batchers that share a device: one batch at a time, in turn, and nobody waits for more than the others' next one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from teacher_server.batcher import Batcher, Priority
from teacher_server.device import Device
from teacher_server.errors import NotReady
from teacher_server.packing import PackedBatch
from teacher_server.rows import Floats
from tests.teacher_server.scoring import packer
from tests.teacher_server.test_batcher import submitted, until, work


class Computer:
    """A device's two models: each notes whose batch it computes, and fails if the other one computes."""

    def __init__(self) -> None:
        self.go, self.order, self._busy = threading.Event(), list[str](), threading.Lock()
        self.go.set()

    def of(self, name: str) -> Callable[[PackedBatch], Floats]:
        def compute(batch: PackedBatch) -> Floats:
            assert self._busy.acquire(blocking=False), "two batches at once"
            try:
                self.order.append(name)
                assert self.go.wait(10)
                time.sleep(0.01)
                return batch.candidates.astype(np.float32)
            finally:
                self._busy.release()

        return compute


def run(body: Callable[[Batcher, Batcher, Computer], Awaitable[None]], timeout: float | None = None) -> None:
    async def whole() -> None:
        device, computer = Device(), Computer()
        one, other = (
            Batcher(computer.of(name), packer(4), 10_000, batch_timeout=timeout, device=device) for name in "ab"
        )
        one.start()
        other.start()
        try:
            await body(one, other, computer)
        finally:
            computer.go.set()
            await asyncio.gather(one.close(10), other.close(10))
            device.close()

    asyncio.run(whole())


def test_they_take_turns_however_much_one_has_to_do() -> None:
    async def body(one: Batcher, other: Batcher, computer: Computer) -> None:
        flood = submitted(one, *(work(cell) for cell in range(40)), priority=Priority.BULK)
        await until(lambda: len(computer.order) >= 2)
        begun = len(computer.order)
        for cell in range(5):
            assert (await other.submit(work(cell))).log_probs.tolist() == [cell, cell + 1]
        assert computer.order[begun:].count("a") <= 11  # one or two for each of the other's
        await asyncio.gather(*flood)
        assert {computer.order.count("a"), computer.order.count("b")} == {40, 5}

    run(body)


def test_waiting_for_ones_turn_is_waiting_and_not_computing() -> None:
    async def body(one: Batcher, other: Batcher, computer: Computer) -> None:
        computer.go.clear()
        (first,) = submitted(one, work(1))
        await until(lambda: computer.order == ["a"])
        (second,) = submitted(other, work(2))
        await asyncio.sleep(0.2)
        computer.go.set()
        await first
        result = await second
        assert result.queue_us > 150_000 > result.compute_us

    run(body, timeout=10)


def test_a_batch_that_does_not_end_makes_both_stuck_until_it_ends() -> None:
    async def body(one: Batcher, other: Batcher, computer: Computer) -> None:
        told: list[tuple[str, bool]] = []
        one.on_stuck = lambda stuck: told.append(("one", stuck))
        other.on_stuck = lambda stuck: told.append(("other", stuck))
        computer.go.clear()
        (first,) = submitted(one, work(1))
        await until(lambda: computer.order == ["a"])
        (second,) = submitted(other, work(2))
        for waiting in (first, second):
            with pytest.raises(NotReady, match="stuck"):
                await waiting
        with pytest.raises(NotReady, match="stuck"):
            await other.submit(work(3))
        computer.go.set()
        await until(lambda: not other.stuck)
        assert sorted(told) == [("one", False), ("one", True), ("other", False), ("other", True)]
        assert (await other.submit(work(4))).log_probs.tolist() == [4, 5]

    run(body, timeout=0.1)


def test_one_that_is_closed_gives_its_turn_back_when_its_batch_has_ended() -> None:
    async def body(one: Batcher, other: Batcher, computer: Computer) -> None:
        computer.go.clear()
        (lost,) = submitted(one, work(1))
        await until(lambda: computer.order == ["a"])
        (kept,) = submitted(other, work(2))
        await one.close(0.05)
        with pytest.raises(NotReady):
            await lost
        await asyncio.sleep(0.05)
        assert computer.order == ["a"]
        computer.go.set()
        assert (await kept).log_probs.tolist() == [2, 3]

    run(body, timeout=10)
