"""Scheduling, with a device that the test holds, lets go and breaks (a fake at the seam to the engine)."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest

from teacher_server.batcher import Batcher, Priority
from teacher_server.errors import EngineFailure, Expired, NotReady, Overloaded
from teacher_server.packing import PackedBatch, Packer
from teacher_server.reports import BatchReport, Observer
from teacher_server.rows import Floats, RowPlan, ScoreWork
from tests.teacher_server.scoring import packer, work_of

POISON = 13


class Device:
    """Answers with each candidate's cell; works only while it is let go, and breaks on POISON in a history."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.begun: list[PackedBatch] = []
        self.memory = 1 << 30  # row tokens

    def compute(self, batch: PackedBatch) -> Floats:
        self.begun.append(batch)
        assert self.go.wait(10)
        if (batch.tokens == POISON).any():
            raise RuntimeError("/secret/file.cu:12: the device choked")
        if batch.row_tokens > self.memory:
            raise MemoryError("no room")
        return batch.candidates.astype(np.float32)


class WatchedPacker(Packer):
    """Remembers how many works each pack held."""

    packed: list[int]

    def pack(self, parts: Sequence[RowPlan]) -> PackedBatch:
        self.packed.append(len(parts))
        return super().pack(parts)


def watched(token_budget: int) -> WatchedPacker:
    policy = WatchedPacker(**vars(packer(token_budget)))
    object.__setattr__(policy, "packed", [])
    return policy


def work(cell: int) -> ScoreWork:
    """One history of one token: a row of two tokens. Its answer is [cell, cell + 1]."""
    return work_of([[cell]], [[[cell, cell + 1]]])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def run(
    body: Callable[[Batcher, Device], Awaitable[None]],
    policy: Packer | None = None,
    queue_tokens: int = 10_000,
    **settings: Any,
) -> None:
    """Run a test's body in an event loop, with a batcher over a device."""

    async def whole() -> None:
        device = Device()
        batcher = Batcher(device.compute, policy or packer(), queue_tokens, **settings)
        batcher.start()
        try:
            await body(batcher, device)
        finally:
            device.go.set()
            await batcher.close(10)

    asyncio.run(whole())


def submitted(batcher: Batcher, *works: ScoreWork, priority: Priority = Priority.TRAINING) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(batcher.submit(item, priority)) for item in works]


def test_each_caller_gets_its_own_answer() -> None:
    async def body(batcher: Batcher, device: Device) -> None:
        results = await asyncio.gather(*submitted(batcher, *(work(cell) for cell in range(12))))
        for cell, result in enumerate(results):
            assert result.log_probs.tolist() == [cell, cell + 1]

    run(body)


def test_works_gather_while_the_device_is_busy() -> None:
    async def body(batcher: Batcher, device: Device) -> None:
        device.go.clear()
        first = submitted(batcher, work(1))
        await until(lambda: len(device.begun) == 1)
        others = submitted(batcher, *(work(cell) for cell in range(2, 8)))
        await asyncio.sleep(0.05)
        device.go.set()
        await asyncio.gather(*first, *others)
        assert [len(batch.reads) for batch in device.begun] == [1, 6]

    run(body)


def test_a_full_batch_is_packed_while_the_device_computes() -> None:
    policy = watched(token_budget=8)  # four works of two tokens

    async def body(batcher: Batcher, device: Device) -> None:
        device.go.clear()
        tasks = submitted(batcher, work(1))
        await until(lambda: len(device.begun) == 1)
        tasks += submitted(batcher, *(work(cell) for cell in range(2, 8)))
        await until(lambda: policy.packed == [1, 4])
        assert len(device.begun) == 1
        device.go.set()
        await asyncio.gather(*tasks)
        assert policy.packed == [1, 4, 2]

    run(body, policy)


def test_works_are_served_in_order_of_arrival() -> None:
    async def body(batcher: Batcher, device: Device) -> None:
        device.go.clear()
        answered: list[int] = []

        async def ask(cell: int) -> None:
            await batcher.submit(work(cell))
            answered.append(cell)

        tasks = [asyncio.create_task(ask(cell)) for cell in range(12)]
        await until(lambda: len(device.begun) == 1)
        device.go.set()
        await asyncio.gather(*tasks)
        assert answered == sorted(answered)

    run(body, packer(token_budget=4))


def test_a_full_queue_refuses_and_then_takes_again() -> None:
    async def body(batcher: Batcher, device: Device) -> None:
        device.go.clear()
        running = submitted(batcher, work(1))
        await until(lambda: len(device.begun) == 1)
        waiting = submitted(batcher, work(2), work(3))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="4 tokens wait, this request needs 2 more and 4 may wait"):
            await batcher.submit(work(4))
        device.go.set()
        await asyncio.gather(*running, *waiting)
        assert (await batcher.submit(work(5))).log_probs.tolist() == [5, 6]

    run(body, queue_tokens=4)


def test_a_work_larger_than_the_queue_is_taken_by_an_empty_one() -> None:
    async def body(batcher: Batcher, device: Device) -> None:
        large = work_of([[1, 2, 3]] * 9, [[[4, 5]] * 3] * 9)
        assert (await batcher.submit(large)).log_probs.tolist() == [4, 5] * 27

    run(body, packer(token_budget=8), queue_tokens=4)


def test_a_poison_work_fails_alone_and_the_loop_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def body(batcher: Batcher, device: Device) -> None:
        device.go.clear()
        first = submitted(batcher, work(0))
        await until(lambda: len(device.begun) == 1)
        group = submitted(batcher, work(1), work(POISON), work(2))
        await asyncio.sleep(0)
        device.go.set()
        one, poisoned, two = await asyncio.gather(*group, return_exceptions=True)
        assert one.log_probs.tolist() == [1, 2]
        assert two.log_probs.tolist() == [2, 3]
        assert isinstance(poisoned, EngineFailure)
        assert "see the log" in str(poisoned)
        assert "secret" not in str(poisoned)  # which is for the log alone
        assert "/secret/file.cu:12: the device choked" in caplog.text
        assert (await batcher.submit(work(3))).log_probs.tolist() == [3, 4]
        await asyncio.gather(*first)

    run(body)


def test_callers_that_went_are_not_computed_and_leave_room() -> None:
    async def body(batcher: Batcher, device: Device) -> None:
        device.go.clear()
        running = submitted(batcher, work(1))
        await until(lambda: len(device.begun) == 1)
        gone = submitted(batcher, work(2), work(3))
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        stays = submitted(batcher, work(4), work(5))  # room for two again
        await asyncio.sleep(0)
        device.go.set()
        await asyncio.gather(*running, *stays)
        seen = {int(token) for batch in device.begun for token in batch.tokens[1:]}
        assert seen == {1, 4, 5}

    run(body, queue_tokens=4)


def test_callers_that_went_after_packing_are_dropped_before_compute() -> None:
    policy = watched(token_budget=4)

    async def body(batcher: Batcher, device: Device) -> None:
        device.go.clear()
        running = submitted(batcher, work(1))
        await until(lambda: len(device.begun) == 1)
        packed = submitted(batcher, work(2), work(3))
        await until(lambda: policy.packed == [1, 2])
        packed[0].cancel()
        await asyncio.sleep(0)
        device.go.set()
        await asyncio.gather(*running, packed[1])
        assert [batch.tokens[1:].tolist() for batch in device.begun] == [[1], [3]]

    run(body, policy)


@pytest.mark.slow
def test_the_padded_batches_of_a_large_work_are_never_there_together() -> None:
    """2,000 rows of 501 tokens are 4 MB; in memory is a batch of 32 KB or two."""
    length, window = 2_500, 500
    large = ScoreWork(
        tokens=np.ones(length, np.int32),
        lengths=np.array([length]),
        scored=np.array([2_000]),
        windows=np.array([window]),
        candidates=np.ones(4_000, np.int32),
        candidate_counts=np.full(2_000, 2),
    )

    async def whole() -> None:
        batcher = Batcher(lambda batch: batch.candidates.astype(np.float32), Packer(1024, 1, 2, 8_192), 10_000)
        batcher.start()
        tracemalloc.start()
        try:
            result = await batcher.submit(large)
            assert tracemalloc.get_traced_memory()[1] < 3_000_000
        finally:
            tracemalloc.stop()
            await batcher.close(10)
        assert result.log_probs.tolist() == [1.0] * 4_000

    asyncio.run(whole())


def test_an_abandoned_large_work_stops_between_batches() -> None:
    async def body(batcher: Batcher, device: Device) -> None:
        device.go.clear()
        [large] = submitted(batcher, work_of([[1]] * 100, [[[4, 5]]] * 100))
        await until(lambda: len(device.begun) == 1)
        large.cancel()
        await asyncio.sleep(0)
        device.go.set()
        await batcher.submit(work(7))
        assert len(device.begun) == 2

    run(body, packer(token_budget=2))


def test_works_without_a_choice_need_no_device() -> None:
    async def body(batcher: Batcher, device: Device) -> None:
        result = await batcher.submit(work_of([[1, 2, 3]], [[[5], [], [6]]]))
        assert result.log_probs.tolist() == [0.0, 0.0]
        assert device.begun == []

    run(body)


def test_times_are_recorded() -> None:
    async def body(batcher: Batcher, device: Device) -> None:
        device.go.clear()
        tasks = submitted(batcher, work(1))
        await until(lambda: len(device.begun) == 1)
        tasks += submitted(batcher, work(2))
        await asyncio.sleep(0.05)
        device.go.set()
        first, second = await asyncio.gather(*tasks)
        assert first.compute_us >= 50_000
        assert second.queue_us >= 50_000
        assert first.queue_us < 50_000 + second.queue_us

    run(body)


def test_closing_finishes_what_is_here_and_takes_no_more() -> None:
    async def body(batcher: Batcher, device: Device) -> None:
        device.go.clear()
        tasks = submitted(batcher, work(1), work(2))
        await until(lambda: len(device.begun) == 1)
        tasks += submitted(batcher, work(3))
        await asyncio.sleep(0)
        closing = asyncio.create_task(batcher.close(10))
        await asyncio.sleep(0)
        with pytest.raises(NotReady):
            await batcher.submit(work(4))
        device.go.set()
        assert [r.log_probs.tolist() for r in await asyncio.gather(*tasks)] == [[1, 2], [2, 3], [3, 4]]
        await closing

    run(body)


def test_what_does_not_finish_within_the_grace_is_told_so() -> None:
    async def body(batcher: Batcher, device: Device) -> None:
        device.go.clear()
        tasks = submitted(batcher, work(1))
        await until(lambda: len(device.begun) == 1)
        tasks += submitted(batcher, work(2))
        await asyncio.sleep(0)
        await batcher.close(0.05)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [NotReady, NotReady]

    run(body)


def test_nothing_hangs_before_the_start() -> None:
    async def body() -> None:
        batcher = Batcher(Device().compute, packer(), 100)
        with pytest.raises(NotReady):
            await batcher.submit(work(1))
        await batcher.close(1)

    asyncio.run(body())


def test_training_goes_first_and_bulk_is_not_starved() -> None:
    async def body(batcher: Batcher, device: Device) -> None:
        device.go.clear()
        first = submitted(batcher, work(0))
        await until(lambda: len(device.begun) == 1)
        bulk = submitted(batcher, work(15), work(16), priority=Priority.BULK)
        await asyncio.sleep(0)
        training = submitted(batcher, *(work(cell) for cell in range(1, 8)))
        await asyncio.sleep(0)
        device.go.set()
        await asyncio.gather(*first, *bulk, *training)
        order = [int(batch.tokens[1]) for batch in device.begun]
        assert order == [0, 15, 1, 2, 3, 4, 16, 5, 6, 7]  # 15 was alone here; 16 has let four go by

    run(body, packer(token_budget=2))


def test_bulk_shares_its_batches_with_nobody() -> None:
    """So that its answers do not depend, in their last bits, on who else asks."""

    async def body(batcher: Batcher, device: Device) -> None:
        device.go.clear()
        first = submitted(batcher, work(0))
        await until(lambda: len(device.begun) == 1)
        others = submitted(batcher, work(8), work(9), priority=Priority.BULK) + submitted(batcher, work(1), work(2))
        await asyncio.sleep(0)
        device.go.set()
        await asyncio.gather(*first, *others)
        assert [batch.tokens[1:].tolist() for batch in device.begun] == [[0], [1, 2], [8], [9]]

    run(body)


def test_a_large_work_gives_way_after_each_of_its_batches() -> None:
    async def body(batcher: Batcher, device: Device) -> None:
        device.go.clear()
        large = submitted(batcher, work_of([[cell] for cell in range(6)], [[[4, 5]]] * 6))
        await until(lambda: len(device.begun) == 1)
        small = submitted(batcher, work(9))
        await asyncio.sleep(0)
        device.go.set()
        await small[0]
        assert not large[0].done()
        assert len(device.begun) <= 4  # one that ran, one that was packed, its own, and one more that may have begun
        assert (await large[0]).log_probs.tolist() == [4, 5] * 6

    run(body, packer(token_budget=2))


def test_a_deadline_that_passes_drops_the_work_before_it_is_computed() -> None:
    async def body(batcher: Batcher, device: Device) -> None:
        device.go.clear()
        first = submitted(batcher, work(1))
        await until(lambda: len(device.begun) == 1)
        with pytest.raises(Expired, match="deadline passed"):
            await batcher.submit(work(2), timeout=0.02)
        assert batcher.queued_tokens == 0
        device.go.set()
        await asyncio.gather(*first)
        assert (await batcher.submit(work(3), timeout=10)).log_probs.tolist() == [3, 4]
        assert [batch.tokens[1:].tolist() for batch in device.begun] == [[1], [3]]

    run(body)


def test_memory_that_ends_halves_the_budget_and_every_answer_comes() -> None:
    budgets: list[int] = []

    async def body(batcher: Batcher, device: Device) -> None:
        device.memory = 10
        large = work_of([[cell] for cell in range(12)], [[[4, cell]] for cell in range(12)])
        answers = await asyncio.gather(*submitted(batcher, large, work(1)))
        assert answers[0].log_probs.tolist() == [number for cell in range(12) for number in (4, cell)]
        assert answers[1].log_probs.tolist() == [1, 2]
        assert budgets
        assert batcher.token_budget == budgets[-1] <= 12
        device.begun.clear()
        await batcher.submit(large)
        assert all(batch.row_tokens <= batcher.token_budget for batch in device.begun)

    run(body, observer=Observer(out_of_memory=budgets.append))


def test_a_row_for_which_memory_is_too_small_fails_alone() -> None:
    async def body(batcher: Batcher, device: Device) -> None:
        device.memory = 3
        works = submitted(batcher, work(1), work_of([[1, 2, 3, 4]], [[[5, 6]]]), work(2))
        one, long, two = await asyncio.gather(*works, return_exceptions=True)
        assert (one.log_probs.tolist(), two.log_probs.tolist()) == ([1, 2], [2, 3])
        assert isinstance(long, EngineFailure)
        assert "memory is too small for a history of 5 tokens" in str(long)
        assert isinstance(long.__cause__, MemoryError)

    run(body)


def test_a_batch_that_does_not_end_fails_its_callers_and_turns_readiness_off_until_it_does() -> None:
    told: list[bool] = []

    async def body(batcher: Batcher, device: Device) -> None:
        batcher.on_stuck = told.append
        device.go.clear()
        running = submitted(batcher, work(1))
        await until(lambda: len(device.begun) == 1)
        waiting = submitted(batcher, work(2))
        results = await asyncio.wait_for(asyncio.gather(*running, *waiting, return_exceptions=True), 5)
        assert [type(result) for result in results] == [NotReady, NotReady]
        assert told == [True]
        with pytest.raises(NotReady, match="stuck"):
            await batcher.submit(work(3))
        device.go.set()
        await until(lambda: told == [True, False])
        assert (await batcher.submit(work(3))).log_probs.tolist() == [3, 4]

    run(body, batch_timeout=0.05)


def test_a_loop_that_ends_leaves_no_caller_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []

    async def body(batcher: Batcher, device: Device) -> None:
        batcher.on_stuck = told.append
        device.go.clear()
        running = submitted(batcher, work(1))
        await until(lambda: len(device.begun) == 1)
        monkeypatch.setattr(batcher, "_worth_packing", None)
        device.go.set()
        later = submitted(batcher, work(2), work(3))
        results = await asyncio.wait_for(asyncio.gather(*running, *later, return_exceptions=True), 5)
        assert NotReady in [type(result) for result in results]
        await until(lambda: told == [True])
        with pytest.raises(NotReady):
            await batcher.submit(work(4))

    run(body)


def test_a_delay_lets_works_gather_on_an_idle_device() -> None:
    async def body(batcher: Batcher, device: Device) -> None:
        tasks = submitted(batcher, work(1))
        await asyncio.sleep(0.02)
        assert device.begun == []
        tasks += submitted(batcher, work(2))
        results = await asyncio.gather(*tasks)
        assert [batch.tokens[1:].tolist() for batch in device.begun] == [[1, 2]]
        assert results[0].queue_us >= 90_000
        full = submitted(batcher, *(work(cell) for cell in range(5)))  # a full batch does not wait
        await asyncio.wait_for(asyncio.gather(*full[:4]), 0.09)
        await asyncio.gather(*full)

    run(body, packer(token_budget=8), max_queue_delay=0.1)


def test_a_full_queue_says_when_to_come_again() -> None:
    async def body(batcher: Batcher, device: Device) -> None:
        await batcher.submit(work(0))
        device.go.clear()
        running = submitted(batcher, work(1))
        await until(lambda: len(device.begun) == 2)
        waiting = submitted(batcher, work(2), work(3))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as full:
            await batcher.submit(work(4))
        assert 0.1 <= full.value.retry_after <= 30
        device.go.set()
        await asyncio.gather(*running, *waiting)

    run(body, queue_tokens=4)


def test_batches_are_reported() -> None:
    reports: list[BatchReport] = []

    async def body(batcher: Batcher, device: Device) -> None:
        await batcher.submit(work_of([[1, 2], [1, 3]], [[[4, 5]], [[6, 7]]]))
        [report] = reports
        sizes = (report.requests, report.positions, report.row_tokens, report.tokens, report.padded)
        assert sizes == (1, 2, 6, 4, 4)  # SOT and 1 are shared
        assert report.seconds > 0

    run(body, observer=Observer(batch=reports.append))
