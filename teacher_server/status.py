"""What the status page shows, as one record: the last two minutes, what waits, totals, and which teacher this is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from teacher_server import __version__
from teacher_server.device_memory import DeviceMemory
from teacher_server.limits import Limits
from teacher_server.metrics import shares
from teacher_server.model import ModelConfig
from teacher_server.models import Models
from teacher_server.recent import (
    QUANTILE_SECONDS,
    RATE_SECONDS,
    Second,
    busy_by_second,
    quantiles,
    quantiles_by_second,
)
from teacher_server.vocabulary import Grid

SHARES = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class Rates:
    """A second, over the last RATE_SECONDS."""

    positions: float
    requests: float  # answered
    failed: float
    batches: float


@dataclass(frozen=True)
class Latency:
    """Milliseconds of the requests that were answered in the last QUANTILE_SECONDS; None: there were none."""

    p50: float | None
    p95: float | None
    p99: float | None
    waiting: float | None  # mean
    computing: float | None  # mean


@dataclass(frozen=True)
class Batches:
    """Of the last QUANTILE_SECONDS; None: there were none."""

    requests: float | None  # mean of a batch
    tokens: float | None  # mean of a batch, padding included
    padding: float | None  # share of the computed tokens
    duplicate: float | None  # share of the rows' tokens that were not computed again


@dataclass(frozen=True)
class Queue:
    """What waits now."""

    requests: int
    tokens: int
    most_tokens: int  # that may wait
    fill: float  # 0..1; more when one request of any size waits alone


@dataclass(frozen=True)
class Device:
    """Where batches are computed."""

    name: str
    busy: float  # share of the last RATE_SECONDS
    token_budget: int  # row tokens that a batch may hold now
    out_of_memory: int  # times, each of which halved the budget
    memory: dict[str, int]  # bytes by kind, as in teacher_device_memory_bytes
    memory_total: int  # bytes


@dataclass(frozen=True)
class Totals:
    """Since the start."""

    positions: int
    outcomes: dict[str, int]  # requests, most frequent first


@dataclass(frozen=True)
class Series:
    """One value for each of the last WINDOW whole seconds, oldest first; None: nothing ended in that second."""

    positions: list[int]
    requests: list[int]
    failed: list[int]
    p50: list[float | None]  # ms
    p95: list[float | None]
    p99: list[float | None]
    batch_requests: list[float | None]  # mean of a batch
    busy: list[float | None]  # 0..1


@dataclass(frozen=True)
class Identity:
    """Which teacher answers here, how it computes, and what it allows."""

    name: str
    digest: str
    version: str  # of the server
    compute_type: str
    sizes: ModelConfig
    grid: Grid
    limits: Limits


@dataclass(frozen=True)
class Neighbour:
    """A model of this server."""

    name: str
    state: str  # READY or UNAVAILABLE
    reason: str  # why it is not ready, or why what should take its place cannot be served


@dataclass(frozen=True)
class Status:
    """The whole record."""

    state: str
    uptime_s: float
    rates: Rates
    latency_ms: Latency
    batches: Batches
    queue: Queue
    device: Device
    totals: Totals
    series: Series
    model: Identity
    models: list[Neighbour]  # all, this one included


def status_of(models: Models, memory: DeviceMemory, name: str = "") -> Status:
    """The record of now, of the model with this name or digest; empty: of the first one.

    Raises UnknownModel, and NotReady where there is none.
    """
    model = models.named(name) if name else next(iter(models), None) or models.meant()
    service, metrics = model.service, model.metrics
    seconds = metrics.recent.series()
    minute, now = seconds[-QUANTILE_SECONDS:], seconds[-RATE_SECONDS:]
    description, waiting, most = service.description, service.queued_tokens, service.queue_tokens
    return Status(
        state=models.state.value,
        uptime_s=round(time.time() - metrics.started, 1),
        rates=Rates(*(_sum(now, name) / len(now) for name in ("positions", "requests", "failed", "batches"))),
        latency_ms=_latency(minute),
        batches=_batches(minute),
        queue=Queue(service.queued_requests, waiting, most, waiting / most),
        device=Device(
            name=_name(memory.device),
            busy=sum(busy_by_second(now)) / len(now),
            token_budget=metrics.token_budget,
            out_of_memory=metrics.out_of_memory_count,
            memory=memory.by_kind(),
            memory_total=memory.total(),
        ),
        totals=Totals(metrics.positions, dict(metrics.outcomes.most_common())),
        series=_series(seconds),
        model=Identity(
            model.name,
            description.digest,
            __version__,
            service.compute_type,
            description.model,
            description.grid,
            service.limits,
        ),
        models=[Neighbour(**{key: each[key] for key in ("name", "state", "reason")}) for each in models.index()],
    )


def _latency(seconds: Sequence[Second]) -> Latency:
    answered = _sum(seconds, "requests")
    means = [_sum(seconds, name) / answered if answered else None for name in ("queue_s", "compute_s")]
    return Latency(*map(_milliseconds, [*quantiles(seconds, SHARES), *means]))


def _batches(seconds: Sequence[Second]) -> Batches:
    count = _sum(seconds, "batches")
    if not count:
        return Batches(None, None, None, None)
    row_tokens, tokens, padded = (int(_sum(seconds, name)) for name in ("row_tokens", "tokens", "padded"))
    return Batches(_sum(seconds, "batch_requests") / count, padded / count, *shares(row_tokens, tokens, padded))


def _series(seconds: Sequence[Second]) -> Series:
    latencies = zip(*quantiles_by_second(seconds, SHARES), strict=True)
    p50, p95, p99 = ([_milliseconds(value) for value in line] for line in latencies)
    return Series(
        positions=[second.positions for second in seconds],
        requests=[second.requests for second in seconds],
        failed=[second.failed for second in seconds],
        p50=p50,
        p95=p95,
        p99=p99,
        batch_requests=[round(each.batch_requests / each.batches, 2) if each.batches else None for each in seconds],
        busy=[round(share, 3) for share in busy_by_second(seconds)],
    )


def _sum(seconds: Sequence[Second], name: str) -> float:
    return sum(getattr(second, name) for second in seconds)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"cpu, {threads} {'thread' if threads == 1 else 'threads'}"
