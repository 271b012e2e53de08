"""`/metrics`: the store's numbers under Prometheus names, in its text format or as OpenMetrics.

The `nv_...` names are those of a Triton server, so that its dashboards show a teacher too. They are untyped, for what
counts there has no `_total` in its name. What every name means: docs/teacher.md, Operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.registry import Collector

from teacher_server import __version__
from teacher_server.device_memory import DeviceMemory
from teacher_server.errors import REQUEST_ERRORS
from teacher_server.metrics import Distribution, Metrics, shares
from teacher_server.oip_service import VERSION, InferenceModel
from teacher_server.reports import CANCELLED, OK, State
from teacher_server.service import Service

OUTCOMES = (OK, CANCELLED, *(error.__name__ for error in REQUEST_ERRORS))  # there from the start, so that rates are
# Which of Triton's reasons for a failure each outcome is; all others are OTHER.
REASONS = {
    "Overloaded": "REJECTED",
    "Expired": "REJECTED",
    "NotReady": "REJECTED",
    CANCELLED: "CANCELED",
    "EngineFailure": "BACKEND",
}


class Exposition:
    """What a scrape of one model returns."""

    def __init__(self, model: InferenceModel, memory: DeviceMemory) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_TeacherCollector(model.service, model.metrics, memory))
        self._registry.register(_TritonCollector(model, memory))
        ProcessCollector(registry=self._registry)

    def encode(self, accept: str = "") -> tuple[bytes, str]:
        """(body, content type) in the format that an Accept header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _TeacherCollector(Collector):
    def __init__(self, service: Service, metrics: Metrics, memory: DeviceMemory) -> None:
        self._service, self._metrics, self._memory = service, metrics, memory

    def collect(self) -> Iterator[Metric]:
        yield from self._requests()
        yield from self._batches()
        yield from self._queue()
        yield from self._identity()

    def _requests(self) -> Iterator[Metric]:
        counted = self._metrics
        requests = CounterMetricFamily("teacher_requests", "Requests that ended, by outcome.", labels=["outcome"])
        for outcome, count in (dict.fromkeys(OUTCOMES, 0) | counted.outcomes).items():
            requests.add_metric([outcome], count)
        yield requests
        yield CounterMetricFamily("teacher_positions", "Scored positions of answered requests.", counted.positions)
        yield _histogram("teacher_request_duration_seconds", "Answered requests, whole.", counted.request_s)
        yield _histogram("teacher_request_queue_seconds", "Answered requests: waiting.", counted.queue_s)
        yield _histogram("teacher_request_compute_seconds", "Answered requests: on the device.", counted.compute_s)

    def _batches(self) -> Iterator[Metric]:
        counted = self._metrics
        yield _histogram("teacher_batch_duration_seconds", "Batches: time on the device.", counted.batch_s)
        yield _histogram("teacher_batch_requests", "Requests in a batch.", counted.batch_requests)
        yield _histogram("teacher_batch_tokens", "Tokens in a batch, padding included.", counted.batch_tokens)
        yield CounterMetricFamily("teacher_rows", "Rows computed.", counted.rows)
        yield CounterMetricFamily(
            "teacher_row_tokens", "Tokens of the rows, each row by itself, without padding.", counted.row_tokens
        )
        yield CounterMetricFamily(
            "teacher_tokens", "Tokens computed, what rows share counted once, without padding.", counted.tokens
        )
        yield CounterMetricFamily("teacher_padded_tokens", "Tokens computed, with padding.", counted.padded_tokens)
        padding, duplicate = shares(counted.row_tokens, counted.tokens, counted.padded_tokens)
        yield GaugeMetricFamily("teacher_padding_share", "Padding among computed tokens since the start.", padding)
        yield GaugeMetricFamily(
            "teacher_duplicate_share", "Tokens of rows that were not computed again, since the start.", duplicate
        )

    def _queue(self) -> Iterator[Metric]:
        service, counted = self._service, self._metrics
        yield GaugeMetricFamily("teacher_queue_requests", "Requests that wait.", service.queued_requests)
        yield GaugeMetricFamily("teacher_queue_tokens", "Row tokens that wait.", service.queued_tokens)
        yield GaugeMetricFamily("teacher_token_budget", "Row tokens that a batch may hold now.", counted.token_budget)
        yield CounterMetricFamily(
            "teacher_out_of_memory", "Times the device ran out of memory.", counted.out_of_memory_count
        )
        yield CounterMetricFamily("teacher_watchdog_trips", "Batches over their time limit.", counted.watchdog_trips)
        memory = GaugeMetricFamily("teacher_device_memory_bytes", "Memory of the device.", labels=["kind"])
        for kind, size in self._memory.by_kind().items():
            memory.add_metric([kind], size)
        yield memory

    def _identity(self) -> Iterator[Metric]:
        service = self._service
        state = StateSetMetricFamily("teacher_state", "Where the server is in its life.")
        state.add_metric([], {each.value: each is service.state for each in State})
        yield state
        yield GaugeMetricFamily("teacher_ready", "1 when requests are taken.", service.state is State.READY)
        yield InfoMetricFamily("teacher", "Which teacher this is.", identity(service))
        yield GaugeMetricFamily(
            "teacher_start_time_seconds", "When the server started, Unix time.", self._metrics.started
        )


class _TritonCollector(Collector):
    """A teacher by the names of a Triton server's metrics."""

    def __init__(self, model: InferenceModel, memory: DeviceMemory) -> None:
        self._service, self._metrics, self._memory = model.service, model.metrics, memory
        self._labels = {"model": model.name, "version": VERSION}

    def collect(self) -> Iterator[Metric]:
        counted, labels = self._metrics, self._labels
        yield _untyped("nv_inference_request_success", "Answered requests.", labels, counted.outcomes[OK])
        yield self._failures()
        yield _untyped("nv_inference_count", "Scored positions of answered requests.", labels, counted.positions)
        yield _untyped("nv_inference_exec_count", "Batches computed.", labels, counted.batch_s.count)
        for part, times in (
            ("request", counted.request_s),
            ("queue", counted.queue_s),
            ("compute_infer", counted.compute_s),
        ):
            described = f"Answered requests: {part} time, in microseconds."
            yield _untyped(f"nv_inference_{part}_duration_us", described, labels, round(times.sum * 1e6))
        waiting = self._service.queued_requests
        yield _untyped("nv_inference_pending_request_count", "Requests that wait.", labels, waiting)
        for name, of_device, size in self._memory.as_triton():
            yield _untyped(name, "Memory, in bytes.", of_device, size)

    def _failures(self) -> Metric:
        by_reason = dict.fromkeys(("REJECTED", "CANCELED", "BACKEND", "OTHER"), 0)
        for outcome, count in self._metrics.outcomes.items():
            if outcome != OK:
                by_reason[REASONS.get(outcome, "OTHER")] += count
        family = Metric("nv_inference_request_failure", "Requests that failed, by Triton's reasons.", "untyped")
        for reason, count in by_reason.items():
            family.add_sample(family.name, {**self._labels, "reason": reason}, count)
        return family


def identity(service: Service) -> dict[str, str]:
    """Which teacher answers here, and how it computes."""
    return {
        "digest": service.description.digest,
        "compute_type": service.compute_type,
        "version": __version__,
        "vocab_size": str(service.description.model.vocab_size),
    }


def _histogram(name: str, documentation: str, values: Distribution) -> Metric:
    buckets, reached = [], 0
    for bound, count in zip((*map(str, values.bounds), "+Inf"), values.counts, strict=True):
        reached += count
        buckets.append((bound, reached))
    return HistogramMetricFamily(name, documentation, buckets=buckets, sum_value=values.sum)


def _untyped(name: str, documentation: str, labels: Mapping[str, str], value: float) -> Metric:
    family = Metric(name, documentation, "untyped")
    family.add_sample(name, dict(labels), value)
    return family
