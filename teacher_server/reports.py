"""What the service says of itself to whoever counts: states, requests, batches."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass


class State(enum.Enum):
    """Where the service is in its life: from top to bottom, save that a stuck one may be ready again."""

    STARTING = "starting"
    READY = "ready"
    STUCK = "stuck"  # the device does not finish a batch: an orchestrator should restart the process
    DRAINING = "draining"


@dataclass(frozen=True)
class RequestReport:
    """What became of one request."""

    outcome: str  # "ok", the name of the error's class, or "Cancelled" when the caller went away
    positions: int  # scored
    queue_s: float
    compute_s: float
    total_s: float  # from its arrival in the service


@dataclass(frozen=True)
class BatchReport:
    """What the device computed at once."""

    requests: int
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
