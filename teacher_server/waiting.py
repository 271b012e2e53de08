"""Who waits for the device, and who goes next. No I/O, no threads.

First come, first served, with two exceptions. Training goes before bulk labelling, but of PATIENCE + 1 batches that
are made while bulk waits, one is bulk's. And a work that needs several batches gives way after each of them.

A batch's composition may change an answer in its last bits. A batch of bulk holds one work only, so labels are the same
whenever they are asked, whoever else asks.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from teacher_server.errors import Overloaded
from teacher_server.rows import Floats, RowPlan

PATIENCE = 4


class Priority(enum.IntEnum):
    """Who goes first."""

    TRAINING = 0  # somebody waits for the answer
    BULK = 1  # labelling: when the device has time, but never not at all


@dataclass(eq=False)
class Ticket:
    """One work on its way: what of it waits, and the answer as far as it is known."""

    plan: RowPlan
    priority: Priority
    submitted: float  # perf_counter seconds
    answer: asyncio.Future[Floats]
    waiting: deque[RowPlan] = field(init=False)  # parts that were not taken yet
    log_probs: Floats = field(init=False)  # [C]
    unknown_rows: int = field(init=False)
    started: float | None = None  # when the device began with its first part
    compute_s: float = 0.0  # of all batches that it was in

    def __post_init__(self) -> None:
        self.waiting = deque([self.plan])
        self.log_probs = np.zeros(len(self.plan.candidates), np.float32)
        self.unknown_rows = len(self.plan.lengths)

    def learn(self, part: RowPlan, log_probs: Floats) -> None:
        """Take a part's answers; the work's answer is there when no row is unknown."""
        self.log_probs[part.targets] = log_probs
        self.unknown_rows -= len(part.lengths)
        if not self.unknown_rows and not self.answer.done():
            self.answer.set_result(self.log_probs)


def fail(tickets: Iterable[Ticket], error: Exception) -> None:
    """Answer all that have no answer yet with an error."""
    for ticket in tickets:
        if not ticket.answer.done():
            ticket.answer.set_exception(error)


Group = list[tuple[Ticket, RowPlan]]  # what is packed together


class WaitingLine:
    """A bounded queue: at most `limit` row tokens wait; a work of any size may wait alone."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.tokens = 0  # that wait
        self._lines: dict[Priority, dict[Ticket, None]] = {priority: {} for priority in Priority}
        self._passed_over = 0  # batches that bulk has let go by

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def admit(self, ticket: Ticket, retry_after: float) -> None:
        """Raises Overloaded when the queue is full."""
        needed = ticket.plan.row_tokens
        if self.tokens and self.tokens + needed > self.limit:
            raise Overloaded(
                f"the queue is full: {self.tokens} tokens wait, this request needs {needed} more "
                f"and {self.limit} may wait; try again in {retry_after:.1f} s",
                retry_after,
            )
        self._lines[ticket.priority][ticket] = None
        self.tokens += needed

    def leave(self, ticket: Ticket) -> None:
        """Take out what of the work still waits."""
        if self._lines[ticket.priority].pop(ticket, self) is None:
            self.tokens -= sum(part.row_tokens for part in ticket.waiting)
            ticket.waiting.clear()

    def oldest(self) -> float:
        """When the work that waits longest was submitted, in perf_counter seconds."""
        return min(ticket.submitted for line in self._lines.values() for ticket in line)

    def take(self, token_budget: int) -> Group:
        """The next batch: parts that hold at most `token_budget` row tokens, or a single row."""
        bulk, training = self._lines[Priority.BULK], self._lines[Priority.TRAINING]
        bulk_first = bool(bulk) and self._passed_over >= PATIENCE
        takes_bulk = bulk_first or not training
        self._passed_over = self._passed_over + 1 if bulk and not takes_bulk else 0
        return self._next_group(bulk, 1, token_budget) if takes_bulk else self._next_group(training, None, token_budget)

    def _next_group(self, line: dict[Ticket, None], most: int | None, token_budget: int) -> Group:
        """Parts of the first works of a line, at most so many works, while there is room or the group is empty."""
        group: Group = []
        room = token_budget
        while line and len(group) != most:
            ticket = next(iter(line))
            part = _next_part(ticket, token_budget)
            if group and part.row_tokens > room:
                break
            group.append((ticket, ticket.waiting.popleft()))
            room -= part.row_tokens
            self.tokens -= part.row_tokens
            del line[ticket]
            if ticket.waiting:
                line[ticket] = None  # behind the others
                break
        return group


def _next_part(ticket: Ticket, token_budget: int) -> RowPlan:
    """The work's next part, cut to the budget if it has several rows."""
    part = ticket.waiting[0]
    if part.row_tokens > token_budget and len(part.lengths) > 1:
        ticket.waiting.popleft()
        ticket.waiting.extendleft(reversed(part.parts(token_budget)))
    return ticket.waiting[0]
