"""One endpoint of a pool: its state, and what it is told by. No I/O, no threads."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from enum import Enum

from trainer.teacher.endpoint import Endpoint, EndpointError, Trouble
from trainer.teacher.protocol import Description

BACKOFF_S, LONGEST_BACKOFF_S = 0.2, 10.0


def backoff(failures: int) -> float:
    """Seconds until the next try after so many failures in a row; spread, so that not all callers come at once."""
    return min(LONGEST_BACKOFF_S, BACKOFF_S * 2 ** min(failures - 1, 10)) * random.uniform(0.7, 1.3)


class State(Enum):
    OUT = "out"
    READY = "ready"
    OTHER = "other"  # another teacher; as out, but it does not count as lost


@dataclass
class Counts:
    """What became of the requests to one endpoint."""

    calls: int = 0
    failures: int = 0
    refusals: int = 0  # its queue was full


@dataclass(eq=False)
class Member:
    """One endpoint and how it is doing."""

    name: str
    endpoint: Endpoint
    counts: Counts
    state: State = State.OUT
    described: Description | None = None  # what it said last
    error: EndpointError | None = None
    reported: str | None = None  # what was said of it being another teacher
    failures: int = 0  # in a row, probes included
    refusals: int = 0  # in a row
    full_until: float = 0.0
    since: float = field(default_factory=time.monotonic)  # in this state
    outstanding: int = 0
    turn: int = 0
    leaving: bool = False  # no new calls; closed after the last one

    @property
    def pause_s(self) -> float:
        """Until it is asked who it is, again or for the first time."""
        return backoff(self.failures) if self.failures else 0.0

    def enter(self, state: State) -> None:
        self.state, self.since = state, time.monotonic()

    def answered(self) -> None:
        self.failures = self.refusals = 0

    def refused(self, error: EndpointError) -> None:
        """Its queue is full: nobody asks until there may be room."""
        self.counts.refusals += 1
        self.refusals += 1
        told = error.pushback_s
        pause = backoff(self.refusals) if told is None else told * random.uniform(1, 1.2)
        self.full_until = max(self.full_until, time.monotonic() + pause)
        self.error = error

    def put_out(self, error: EndpointError) -> None:
        """No more work until it has described itself."""
        self.error = error
        self.failures += 1
        self.enter(State.OTHER if error.trouble is Trouble.OTHER else State.OUT)


@dataclass(frozen=True)
class Call:
    """One request under way."""

    member: Member
    begun: float
