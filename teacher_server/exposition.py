"""`/metrics`: the store's numbers under Prometheus names, in its text format or as OpenMetrics.

The `nv_...` names are those of a Triton server, so that its dashboards show a teacher too. They are untyped, for what
counts there has no `_total` in its name.
Numbers of one model have the label `model`. What every name means: docs/teacher.md, Operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

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
from teacher_server.models import Models
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
MICROSECONDS = "Answered requests: {} time, in microseconds."


class Exposition:
    """What a scrape of a server returns."""

    def __init__(self, models: Models, memory: DeviceMemory) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_TeacherCollector(models, memory))
        self._registry.register(_TritonCollector(models, memory))
        ProcessCollector(registry=self._registry)

    def encode(self, accept: str = "") -> tuple[bytes, str]:
        """(body, content type) in the format that an Accept header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _TeacherCollector(Collector):
    def __init__(self, models: Models, memory: DeviceMemory) -> None:
        self._models, self._memory = models, memory

    def collect(self) -> Iterator[Metric]:
        yield from self._requests()
        yield from self._batches()
        yield from self._queue()
        yield from self._identity()

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "teacher_requests", "Requests that ended, by outcome.", labels=["model", "outcome"]
        )
        counted = [(model.name, model.metrics) for model in self._models]
        if self._models.only is None or self._models.nobodys.outcomes:  # all is meant for the only one
            counted.append(("", self._models.nobodys))
        for name, metrics in counted:
            for outcome, count in (dict.fromkeys(OUTCOMES, 0) | metrics.outcomes).items():
                requests.add_metric([name, outcome], count)
        yield requests
        yield self._count("teacher_positions", "Scored positions of answered requests.", lambda m: m.positions)
        yield self._spread("teacher_request_duration_seconds", "Answered requests, whole.", lambda m: m.request_s)
        yield self._spread("teacher_request_queue_seconds", "Answered requests: waiting.", lambda m: m.queue_s)
        yield self._spread(
            "teacher_request_compute_seconds", "Answered requests: on the device.", lambda m: m.compute_s
        )

    def _batches(self) -> Iterator[Metric]:
        yield self._spread("teacher_batch_duration_seconds", "Batches: time on the device.", lambda m: m.batch_s)
        yield self._spread("teacher_batch_requests", "Requests in a batch.", lambda m: m.batch_requests)
        yield self._spread("teacher_batch_tokens", "Tokens in a batch, padding included.", lambda m: m.batch_tokens)
        yield self._count("teacher_rows", "Rows computed.", lambda m: m.rows)
        yield self._count(
            "teacher_row_tokens", "Tokens of the rows, each row by itself, without padding.", lambda m: m.row_tokens
        )
        yield self._count(
            "teacher_tokens", "Tokens computed, what rows share counted once, without padding.", lambda m: m.tokens
        )
        yield self._count("teacher_padded_tokens", "Tokens computed, with padding.", lambda m: m.padded_tokens)
        padding = "Padding among computed tokens since the start."
        duplicate = "Tokens of rows that were not computed again, since the start."
        yield self._gauge("teacher_padding_share", padding, lambda model: _shares(model.metrics)[0])
        yield self._gauge("teacher_duplicate_share", duplicate, lambda model: _shares(model.metrics)[1])

    def _queue(self) -> Iterator[Metric]:
        yield self._gauge("teacher_queue_requests", "Requests that wait.", lambda model: model.service.queued_requests)
        yield self._gauge("teacher_queue_tokens", "Row tokens that wait.", lambda model: model.service.queued_tokens)
        yield self._gauge(
            "teacher_token_budget", "Row tokens that a batch may hold now.", lambda model: model.metrics.token_budget
        )
        yield self._count(
            "teacher_out_of_memory", "Times the device ran out of memory.", lambda m: m.out_of_memory_count
        )
        yield self._count(
            "teacher_watchdog_trips", "Times that a batch was over its limit.", lambda m: m.watchdog_trips
        )
        memory = GaugeMetricFamily("teacher_device_memory_bytes", "Memory of the device.", labels=["kind"])
        for kind, size in self._memory.by_kind().items():
            memory.add_metric([kind], size)
        yield memory

    def _identity(self) -> Iterator[Metric]:
        models = self._models
        state = StateSetMetricFamily("teacher_state", "Where the server is in its life.")
        state.add_metric([], {each.value: each is models.state for each in State})
        yield state
        yield GaugeMetricFamily("teacher_ready", "1 when requests are taken.", models.ready)
        ready = GaugeMetricFamily("teacher_model_ready", "1 when the model's requests are taken.", labels=["model"])
        for name, is_ready in (
            dict.fromkeys(models.broken, False) | {each.name: each.ready for each in models}
        ).items():
            ready.add_metric([name], is_ready)
        yield ready
        broken = GaugeMetricFamily("teacher_model_broken", "1 when its folder cannot be served.", labels=["model"])
        for name in models.broken | {each.name: "" for each in models}:
            broken.add_metric([name], name in models.broken)
        yield broken
        info = InfoMetricFamily("teacher", "Which teachers these are.", labels=["model"])
        for model in models:
            info.add_metric([model.name], identity(model.service))
        yield info
        yield GaugeMetricFamily(
            "teacher_start_time_seconds", "When the server started, Unix time.", models.nobodys.started
        )

    def _count(self, name: str, documentation: str, value: Callable[[Metrics], float]) -> Metric:
        family = CounterMetricFamily(name, documentation, labels=["model"])
        for model in self._models:
            family.add_metric([model.name], value(model.metrics))
        return family

    def _gauge(self, name: str, documentation: str, value: Callable[[InferenceModel], float]) -> Metric:
        family = GaugeMetricFamily(name, documentation, labels=["model"])
        for model in self._models:
            family.add_metric([model.name], value(model))
        return family

    def _spread(self, name: str, documentation: str, values: Callable[[Metrics], Distribution]) -> Metric:
        family = HistogramMetricFamily(name, documentation, labels=["model"])
        for model in self._models:
            found = values(model.metrics)
            family.add_metric([model.name], _buckets(found), found.sum)
        return family


class _TritonCollector(Collector):
    """The teachers by the names of a Triton server's metrics."""

    def __init__(self, models: Models, memory: DeviceMemory) -> None:
        self._models, self._memory = models, memory

    def collect(self) -> Iterator[Metric]:
        told: list[tuple[str, str, Callable[[InferenceModel], float]]] = [
            ("request_success", "Answered requests.", lambda model: model.metrics.outcomes[OK]),
            ("count", "Scored positions of answered requests.", lambda model: model.metrics.positions),
            ("exec_count", "Batches computed.", lambda model: model.metrics.batch_s.count),
            ("pending_request_count", "Requests that wait.", lambda model: model.service.queued_requests),
            ("request_duration_us", MICROSECONDS.format("request"), lambda model: _us(model.metrics.request_s)),
            ("queue_duration_us", MICROSECONDS.format("queue"), lambda model: _us(model.metrics.queue_s)),
            (
                "compute_infer_duration_us",
                MICROSECONDS.format("compute_infer"),
                lambda model: _us(model.metrics.compute_s),
            ),
        ]
        for name, documentation, value in told:
            family = Metric(f"nv_inference_{name}", documentation, "untyped")
            for model in self._models:
                family.add_sample(family.name, {"model": model.name, "version": VERSION}, value(model))
            yield family
        yield self._failures()
        for name, of_device, size in self._memory.as_triton():
            family = Metric(name, "Memory, in bytes.", "untyped")
            family.add_sample(name, of_device, size)
            yield family

    def _failures(self) -> Metric:
        family = Metric("nv_inference_request_failure", "Requests that failed, by Triton's reasons.", "untyped")
        for model in self._models:
            by_reason = dict.fromkeys(("REJECTED", "CANCELED", "BACKEND", "OTHER"), 0)
            for outcome, count in model.metrics.outcomes.items():
                if outcome != OK:
                    by_reason[REASONS.get(outcome, "OTHER")] += count
            for reason, count in by_reason.items():
                labels = {"model": model.name, "version": VERSION, "reason": reason}
                family.add_sample(family.name, labels, count)
        return family


def identity(service: Service) -> dict[str, str]:
    """Which teacher answers here, and how it computes."""
    return {
        "digest": service.description.digest,
        "compute_type": service.compute_type,
        "version": __version__,
        "vocab_size": str(service.description.model.vocab_size),
    }


def _shares(counted: Metrics) -> tuple[float, float]:
    return shares(counted.row_tokens, counted.tokens, counted.padded_tokens)


def _us(times: Distribution) -> int:
    return round(times.sum * 1e6)


def _buckets(values: Distribution) -> list[tuple[str, float]]:
    found, reached = list[tuple[str, float]](), 0
    for bound, count in zip((*map(str, values.bounds), "+Inf"), values.counts, strict=True):
        reached += count
        found.append((bound, reached))
    return found
