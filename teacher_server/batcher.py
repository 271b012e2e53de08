"""Scheduling: between callers, who await their own answers, and a device that computes one batch at a time.

Work-conserving: an idle device takes what there is at once (or after `max_queue_delay`, if there is one); while it
is busy, works gather until it is free or until they fill the token budget, and the next batch is packed. One thread
packs and one computes, so the event loop never waits for either.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from teacher_server.device import Device
from teacher_server.errors import EngineFailure, Expired, NotReady
from teacher_server.packing import PackedBatch, Packer
from teacher_server.reports import BatchReport, Observer
from teacher_server.rows import Floats, ScoreWork
from teacher_server.waiting import Group, Priority, Ticket, WaitingLine, fail
from teacher_server.worker import Worker

log = logging.getLogger("teacher")

PLANNED_ASIDE = 50_000  # tokens and candidates from which a work is planned in the packing thread
PACKED_HERE = 256  # row tokens up to which a batch is packed in the event loop
SHUT_DOWN = "the teacher shut down before it came to this request"

__all__ = ["Batcher", "Priority", "WorkResult"]


@dataclass(frozen=True, eq=False)
class WorkResult:
    """The answer to one work."""

    log_probs: Floats  # [C] in the work's order
    queue_us: int  # from submission until the device began with it
    compute_us: int  # that the device took for the batches that it was in
    truncated: int  # scored positions whose history was cut to fit


class Batcher:
    """Answers works, in batches of at most `packer.token_budget` row tokens.

    If a batch fails, its works are tried once more, each alone, and only those that fail again fail. If memory ends,
    the budget is halved and the batch is tried in smaller ones. A batch that takes longer than `batch_timeout`
    seconds makes the batcher stuck: all works fail with NotReady, and so do later ones until the batch ends.
    Batchers may share a `device`; then they take turns, batch by batch, and are stuck together.
    """

    def __init__(
        self,
        compute: Callable[[PackedBatch], Floats],
        packer: Packer,
        queue_tokens: int,
        *,
        max_queue_delay: float = 0.0,
        batch_timeout: float | None = None,
        observer: Observer | None = None,
        device: Device | None = None,
    ) -> None:
        self._compute_batch, self._packer = compute, packer
        self._max_queue_delay, self._batch_timeout = max_queue_delay, batch_timeout
        self._observer = observer or Observer()
        self.on_stuck: Callable[[bool], None] = lambda stuck: None  # for the service; called in the event loop
        self.token_budget = packer.token_budget
        self.queue_tokens = queue_tokens  # that may wait
        self._line = WaitingLine(queue_tokens)
        self._unanswered: set[Ticket] = set()  # waiting or in a batch
        self._tokens_per_s = 0.0  # of late
        self._changed = asyncio.Event()  # something was queued, the device became free, or no more will come
        self._closing = False
        self._packing_thread = Worker("teacher-packing")
        self._device, self._own_device = device or Device(), device is None
        self._ended_early = False
        self._device.share(self._stuck_changed)
        self._loop_task: asyncio.Task[None] | None = None

    @property
    def stuck(self) -> bool:
        return self._device.stuck or self._ended_early

    @property
    def queued_tokens(self) -> int:
        """Row tokens that wait."""
        return self._line.tokens

    @property
    def queued_requests(self) -> int:
        return len(self._line)

    def start(self) -> None:
        """Begin to serve, in the running event loop."""
        self._loop_task = asyncio.create_task(self._dispatch(), name="teacher-batcher")
        self._loop_task.add_done_callback(self._ended)

    async def submit(
        self, work: ScoreWork, priority: Priority = Priority.TRAINING, timeout: float | None = None
    ) -> WorkResult:
        """The work's answer, within `timeout` seconds. Cancelling the caller takes the work out of the queue.

        Raises Overloaded when the queue is full, Expired when there is no answer in time, EngineFailure when the
        work cannot be computed, NotReady when the batcher is stuck or closing.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._answered(work, priority)
        except TimeoutError:
            raise Expired("the deadline passed before the answer was there: allow more time, or ask later") from None

    async def close(self, grace: float) -> None:
        """Take no more works, finish those that are here within `grace` seconds, fail the rest with NotReady."""
        self._closing = True
        self._changed.set()
        if self._loop_task is not None:
            _, unfinished = await asyncio.wait({self._loop_task}, timeout=grace)
            for task in unfinished:
                task.cancel()
            await asyncio.wait({self._loop_task})
        self._packing_thread.close()
        self._device.leave(self._stuck_changed)
        if self._own_device:
            self._device.close()

    async def _answered(self, work: ScoreWork, priority: Priority) -> WorkResult:
        self._check_open()
        submitted = perf_counter()
        if len(work.tokens) + len(work.candidates) > PLANNED_ASIDE:
            plan = await self._packing_thread.do(self._packer.plan, work)
            self._check_open()
        else:
            plan = self._packer.plan(work)
        if not plan.row_tokens:
            return WorkResult(np.zeros(len(work.candidates), np.float32), 0, 0, plan.truncated)
        ticket = Ticket(plan, priority, submitted, asyncio.get_running_loop().create_future())
        self._line.admit(ticket, self._retry_after())
        self._unanswered.add(ticket)
        self._changed.set()
        try:
            log_probs = await ticket.answer
        finally:
            self._line.leave(ticket)
            self._unanswered.discard(ticket)
        queued = (ticket.started or submitted) - submitted
        return WorkResult(log_probs, _microseconds(queued), _microseconds(ticket.compute_s), plan.truncated)

    def _check_open(self) -> None:
        if self._closing or self._loop_task is None or self._loop_task.done():
            raise NotReady("the teacher takes no requests: it is starting or shutting down")
        if self.stuck:
            raise NotReady("the teacher is stuck in a batch: try another replica, or restart this one")

    def _retry_after(self) -> float:
        """Seconds until about half of what waits now is through."""
        return min(max(self._line.tokens / 2 / max(self._tokens_per_s, 1.0), 0.1), 30.0)

    async def _dispatch(self) -> None:
        computing: asyncio.Task[None] | None = None
        try:
            while await self._worth_packing(computing):
                group = self._line.take(self.token_budget)
                packing = self._packed(group)
                if not packing.done():
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
            fail(self._unanswered, NotReady(SHUT_DOWN))

    def _ended(self, task: asyncio.Task[None]) -> None:
        """If the loop ends before it should, nobody must wait for it, or be sent here."""
        if not self._closing:
            log.critical("the batch loop ended: restart the server", exc_info=task.exception())
            self._ended_early = True
            self._stuck_changed(True)

    async def _worth_packing(self, computing: asyncio.Task[None] | None) -> bool:
        """Wait until a batch should be packed; False when there will be none any more."""
        while True:
            device_free = computing is None or computing.done()
            delay = self._delay() if device_free else None
            if len(self._line) and (self._line.tokens >= self.token_budget or (delay is not None and delay <= 0)):
                return True
            if self._closing and not len(self._line):
                return False
            self._changed.clear()
            try:
                async with asyncio.timeout(delay if len(self._line) else None):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _delay(self) -> float:
        """Seconds that the works that are here still may wait for others."""
        if not len(self._line) or not self._max_queue_delay or self._closing:
            return 0.0
        return self._line.oldest() + self._max_queue_delay - perf_counter()

    def _packed(self, group: Group) -> asyncio.Future[PackedBatch]:
        """The group's batch; a small one is packed at once, for a thread would take longer to wake up."""
        parts = [part for _, part in group]
        if sum(part.row_tokens for part in parts) > PACKED_HERE:
            return self._packing_thread.do(self._packer.pack, parts)
        packed: asyncio.Future[PackedBatch] = asyncio.get_running_loop().create_future()
        try:
            packed.set_result(self._packer.pack(parts))
        except Exception as error:
            packed.set_exception(error)
        return packed

    async def _answer(self, group: Group, packing: asyncio.Future[PackedBatch]) -> None:
        """Compute a group and tell its tickets; whatever goes wrong, only they hear of it."""
        wanted = [(ticket, part) for ticket, part in group if not ticket.answer.done()]
        try:
            if not wanted:
                packing.exception()  # seen, whatever it was
                return
            batch = await (packing if len(wanted) == len(group) else self._packed(wanted))
            log_probs = await self._computed(wanted, batch)
        except MemoryError as error:
            await self._answer_in_smaller_batches(wanted, error)
        except Exception as error:
            await self._answer_each_alone(wanted, error)
        else:
            ends = np.cumsum([len(part.targets) for _, part in wanted])
            for (ticket, part), found in zip(wanted, np.split(log_probs, ends[:-1]), strict=True):
                ticket.learn(part, found)

    async def _computed(self, group: Group, batch: PackedBatch) -> Floats:
        tickets = {ticket for ticket, _ in group}
        computing = await self._device.begin(self._compute_batch, batch)
        begun = perf_counter()
        for ticket in tickets:
            ticket.started = ticket.started or begun
        _, late = await asyncio.wait({computing}, timeout=self._batch_timeout)
        if late:
            await self._wait_stuck(computing)
        log_probs = await computing
        seconds = perf_counter() - begun
        for ticket in tickets:
            ticket.compute_s += seconds
        self._tokens_per_s = 0.8 * (self._tokens_per_s or batch.row_tokens / seconds) + 0.2 * batch.row_tokens / seconds
        positions = len(batch.candidate_counts)
        sizes = (batch.row_tokens, batch.nodes, len(batch.tokens))
        rows = sum(len(part.lengths) for _, part in group)
        self._observer.batch(BatchReport(len(tickets), rows, positions, *sizes, seconds))
        return log_probs

    async def _wait_stuck(self, computing: asyncio.Future[Floats]) -> None:
        log.error("a batch has not ended within %s s: the teacher is stuck, restart it", self._batch_timeout)
        self._device.set_stuck()
        await asyncio.wait({computing})
        log.warning("the batch has ended after all: the teacher is ready again")

    def _stuck_changed(self, stuck: bool) -> None:
        stuck = stuck or self._ended_early
        if stuck:
            fail(self._unanswered, NotReady("the teacher is stuck in a batch: try another replica"))
        self.on_stuck(stuck)

    async def _answer_in_smaller_batches(self, group: Group, error: MemoryError) -> None:
        """Halve the budget, and try the group in parts of half its size."""
        rows, tokens = sum(len(part.lengths) for _, part in group), sum(part.row_tokens for _, part in group)
        if rows == 1:
            failure = EngineFailure(f"memory is too small for a history of {tokens} tokens: {error}")
            failure.__cause__ = error
            fail([group[0][0]], failure)
            return
        self.token_budget = max(min(self.token_budget, tokens) // 2, self._packer.block_size)
        log.warning("memory ended (%s): batches have at most %d tokens from now on", error, self.token_budget)
        self._observer.out_of_memory(self.token_budget)
        for ticket, part in group:
            for smaller in part.parts(max(min(self.token_budget, tokens // 2), 1)):
                await self._answer([(ticket, smaller)], self._packed([(ticket, smaller)]))

    async def _answer_each_alone(self, group: Group, error: Exception) -> None:
        tickets = {ticket: None for ticket, _ in group}
        if len(tickets) == 1:
            log.error("a request could not be computed: %s: %s", type(error).__name__, error)
            fail(tickets, EngineFailure.from_cause(error))
            return
        log.warning(
            "a batch of %d requests failed (%s: %s): trying each alone", len(tickets), type(error).__name__, error
        )
        for ticket in tickets:
            alone = [(owner, part) for owner, part in group if owner is ticket]
            await self._answer(alone, self._packed(alone))


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)
