"""What the service says of itself to whoever counts: states, requests, batches."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from time import perf_counter
from typing import Any

from teacher_server.errors import TeacherError

OK, CANCELLED = "ok", "Cancelled"


class State(enum.Enum):
    """Where the service is in its life: from top to bottom, save that a stuck one may be ready again."""

    STARTING = "starting"
    READY = "ready"
    STUCK = "stuck"  # the device does not finish a batch: an orchestrator should restart the process
    LEAVING = "leaving"  # requests are still answered, but balancers should send no more
    DRAINING = "draining"


@dataclass(frozen=True)
class RequestReport:
    """What became of one request."""

    outcome: str  # OK, the name of the error's class, or CANCELLED when the caller went away
    total_s: float  # from its arrival in the service
    positions: int = 0  # scored
    queue_s: float = 0.0
    compute_s: float = 0.0
    detail: str = ""  # the error's message


@dataclass(frozen=True)
class BatchReport:
    """What the device computed at once."""

    requests: int
    rows: int
    positions: int  # scored
    row_tokens: int  # that its rows have, each by itself, without padding
    tokens: int  # computed: what several rows share counts once
    padded: int  # computed, padding included
    seconds: float  # on the device


@dataclass(frozen=True)
class Observer:
    """Hears what happens, in the event loop. All of its calls must be quick."""

    request: Callable[[RequestReport], None] = lambda report: None
    batch: Callable[[BatchReport], None] = lambda report: None
    out_of_memory: Callable[[int], None] = lambda token_budget: None  # with the budget from now on
    state: Callable[[State], None] = lambda state: None


def tee(observers: Sequence[Observer]) -> Observer:
    """One observer for several, each of which hears everything, in their order."""

    def to_all(name: str) -> Callable[[Any], None]:
        calls = [getattr(observer, name) for observer in observers]

        def tell(report: Any) -> None:
            for call in calls:
                call(report)

        return tell

    return Observer(**{each.name: to_all(each.name) for each in fields(Observer)})


@contextmanager
def reading(observer: Observer) -> Iterator[None]:
    """Around what is done to a request before a service has it: one that fails there has ended, and is reported."""
    arrived = perf_counter()
    try:
        yield
    except TeacherError as error:
        observer.request(RequestReport(type(error).__name__, perf_counter() - arrived, detail=error.brief))
        raise
