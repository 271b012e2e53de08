"""Scheduling: first come, first served, and the next batch is packed while the device computes.

No timer: an idle device takes what there is at once; while it is busy, works gather until it is free or until
they fill the token budget. One thread packs and one computes, so the event loop never waits for either.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from time import perf_counter

import numpy as np

from teacher_server.errors import EngineFailure, Expired, NotReady, Overloaded
from teacher_server.packing import Floats, Pack, PackedBatch, Packer, RowPlan, ScoreWork

log = logging.getLogger("teacher")


class Priority(enum.IntEnum):
    """Who goes first."""

    TRAINING = 0  # somebody waits for the answer
    BULK = 1  # labelling: when the device has time, but never not at all


_Packed = tuple[Pack, Iterator[PackedBatch]]


@dataclass(frozen=True, eq=False)
class WorkResult:
    """The answer to one work."""

    log_probs: Floats  # [C] in the work's order
    queue_us: int  # from submission until the device began with the work's group
    compute_us: int  # that the device took for the group
    truncated: int  # scored positions whose history was cut to fit


@dataclass(frozen=True)
class BatchReport:
    """What the device computed at once, for whoever counts."""

    requests: int
    positions: int  # scored
    row_tokens: int  # that its rows have, each by itself, without padding
    tokens: int  # computed: what several rows share counts once
    padded: int  # computed, padding included
    seconds: float  # on the device


@dataclass(frozen=True, eq=False)
class _Ticket:
    plan: RowPlan
    answer: asyncio.Future[WorkResult]
    submitted: float  # perf_counter seconds


class Batcher:
    """Between callers, who await their own answers, and a device that computes one batch at a time.

    A group is what is packed together: works in order of arrival until their rows hold `packer.token_budget`
    tokens, and at least one. If a group fails, its works are tried once more, each alone, and only those that
    fail again fail. At most `queue_tokens` row tokens wait; a work of any size is admitted to an empty queue (how
    large one may be is for the service to say). Of a group, one padded batch is computed and one is built ahead.
    """

    def __init__(
        self,
        compute: Callable[[PackedBatch], Floats],
        packer: Packer,
        queue_tokens: int,
        on_batch: Callable[[BatchReport], None] = lambda report: None,
    ) -> None:
        self._compute_batch, self._packer, self._queue_tokens = compute, packer, queue_tokens
        self._on_batch = on_batch
        self._queue: dict[_Ticket, None] = {}  # ordered, and any ticket can leave at once
        self._queued_tokens = 0
        self._unanswered: set[_Ticket] = set()  # queued or in a group
        self._changed = asyncio.Event()  # something was queued, the device became free, or no more will come
        self._closing = False
        self._packing_thread = ThreadPoolExecutor(1, thread_name_prefix="teacher-packing")
        self._device_thread = ThreadPoolExecutor(1, thread_name_prefix="teacher-device")
        self._loop_task: asyncio.Task[None] | None = None

    @property
    def queued_tokens(self) -> int:
        """Row tokens that wait."""
        return self._queued_tokens

    @property
    def queued_requests(self) -> int:
        return len(self._queue)

    def start(self) -> None:
        """Begin to serve, in the running event loop."""
        self._loop_task = asyncio.create_task(self._dispatch(), name="teacher-batcher")

    async def submit(
        self, work: ScoreWork, priority: Priority = Priority.TRAINING, timeout: float | None = None
    ) -> WorkResult:
        """The work's answer, within `timeout` seconds. Cancelling the caller takes the work out of the queue.

        Raises Overloaded when the queue is full, Expired when there is no answer in time, EngineFailure when the
        work cannot be computed, NotReady when the batcher is closing.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._answered(work)
        except TimeoutError:
            raise Expired("the deadline passed before the answer was there: allow more time, or ask later") from None

    async def _answered(self, work: ScoreWork) -> WorkResult:
        if self._closing or self._loop_task is None or self._loop_task.done():
            raise NotReady("the teacher takes no requests: it is starting or shutting down")
        plan = self._packer.plan(work)
        if not plan.row_tokens:
            return WorkResult(np.zeros(len(work.candidates), np.float32), 0, 0, plan.truncated)
        if self._queue and self._queued_tokens + plan.row_tokens > self._queue_tokens:
            raise Overloaded(
                f"the queue is full: {self._queued_tokens} tokens wait, this request needs {plan.row_tokens} more "
                f"and {self._queue_tokens} may wait; try again later"
            )
        ticket = _Ticket(plan, asyncio.get_running_loop().create_future(), perf_counter())
        self._enqueue(ticket)
        try:
            return await ticket.answer
        finally:
            self._dequeue(ticket)
            self._unanswered.discard(ticket)

    async def close(self, grace: float) -> None:
        """Take no more works, finish those that are here within `grace` seconds, fail the rest with NotReady."""
        self._closing = True
        self._changed.set()
        if self._loop_task is not None:
            _, unfinished = await asyncio.wait({self._loop_task}, timeout=grace)
            for task in unfinished:
                task.cancel()
            await asyncio.wait({self._loop_task})
        self._packing_thread.shutdown(wait=False)
        self._device_thread.shutdown(wait=False, cancel_futures=True)

    def _enqueue(self, ticket: _Ticket) -> None:
        self._unanswered.add(ticket)
        self._queue[ticket] = None
        self._queued_tokens += ticket.plan.row_tokens
        self._changed.set()

    def _dequeue(self, ticket: _Ticket) -> None:
        if ticket in self._queue:
            del self._queue[ticket]
            self._queued_tokens -= ticket.plan.row_tokens

    async def _dispatch(self) -> None:
        computing: asyncio.Task[None] | None = None
        try:
            while await self._worth_packing(computing):
                group = self._next_group()
                packing = asyncio.ensure_future(self._packed(group))
                await asyncio.wait({packing})
                if computing is not None:
                    await computing
                computing = asyncio.create_task(self._answer(group, packing))
                computing.add_done_callback(lambda _: self._changed.set())
            if computing is not None:
                await computing
        finally:
            if computing is not None:
                computing.cancel()
            _fail(self._unanswered, NotReady("the teacher shut down before it came to this request"))

    async def _worth_packing(self, computing: asyncio.Task[None] | None) -> bool:
        """Wait until a group should be packed; False when there will be none any more."""
        while True:
            device_free = computing is None or computing.done()
            if self._queue and (device_free or self._queued_tokens >= self._packer.token_budget):
                return True
            if self._closing and not self._queue:
                return False
            self._changed.clear()
            await self._changed.wait()

    def _next_group(self) -> list[_Ticket]:
        group: list[_Ticket] = []
        room = self._packer.token_budget
        for ticket in list(self._queue):
            room -= ticket.plan.row_tokens
            if group and room < 0:
                break
            self._dequeue(ticket)
            group.append(ticket)
        return group

    async def _packed(self, group: list[_Ticket]) -> _Packed:
        plans = [ticket.plan for ticket in group]
        return await asyncio.get_running_loop().run_in_executor(self._packing_thread, self._pack, plans)

    def _pack(self, plans: Sequence[RowPlan]) -> _Packed:
        """The pack, and its batches, of which the first is built here."""
        pack = self._packer.pack(plans)
        batches = pack.batches
        return pack, chain([next(batches)], batches)

    async def _answer(self, group: list[_Ticket], packing: asyncio.Future[_Packed]) -> None:
        """Compute a group and give its callers their answers; whatever goes wrong, only they hear of it."""
        try:
            wanted = [ticket for ticket in group if not ticket.answer.done()]
            if len(wanted) < len(group):
                if not wanted:
                    return
                packing = asyncio.ensure_future(self._packed(wanted))
            group = wanted
            await self._compute(group, *await packing)
        except Exception as error:
            await self._answer_each_alone(group, error)

    async def _answer_each_alone(self, group: list[_Ticket], error: Exception) -> None:
        if len(group) == 1:
            log.error("a request could not be computed: %s: %s", type(error).__name__, error)
            _fail(group, EngineFailure(f"the teacher could not compute this request: {error}"))
            return
        log.warning(
            "a group of %d requests failed (%s: %s): trying each alone", len(group), type(error).__name__, error
        )
        for ticket in group:
            await self._answer([ticket], asyncio.ensure_future(self._packed([ticket])))

    async def _compute(self, group: list[_Ticket], pack: Pack, batches: Iterator[PackedBatch]) -> None:
        started = perf_counter()
        loop = asyncio.get_running_loop()
        log_probs: list[Floats] = []
        batch = next(batches, None)
        while batch is not None:
            if all(ticket.answer.done() for ticket in group):
                return  # every caller has gone in the meantime
            following = loop.run_in_executor(self._packing_thread, next, batches, None)
            begun = perf_counter()
            log_probs.append(await loop.run_in_executor(self._device_thread, self._compute_batch, batch))
            size, positions = batch.tokens.size, len(batch.rows)
            self._on_batch(BatchReport(len(group), positions, size, size, size, perf_counter() - begun))
            batch = await following
        compute_us = _microseconds(perf_counter() - started)
        for ticket, answer in zip(group, pack.answers(log_probs), strict=True):
            if not ticket.answer.done():
                queue_us = _microseconds(started - ticket.submitted)
                ticket.answer.set_result(WorkResult(answer, queue_us, compute_us, ticket.plan.truncated))


def _fail(tickets: Iterable[_Ticket], error: Exception) -> None:
    for ticket in tickets:
        if not ticket.answer.done():
            ticket.answer.set_exception(error)


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)
