"""OpenTelemetry traces of requests: a span a request, and in it one each for waiting and for the device.

The caller's span, if its headers name one, is the parent. Loaded only where traces are wanted; needs the extra `otel`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from teacher_server import __version__
from teacher_server.calls import current_id
from teacher_server.reports import OK, Observer, RequestReport

EXPORT_SECONDS = 5.0  # that a collector may take
CLOSING_SECONDS = 2.0  # for the spans that are still here when the server stops


class Tracing:
    """Spans for one server process, sent over OTLP (gRPC). What is not given here, OTEL_* variables may say."""

    def __init__(self, endpoint: str | None, digest: str | None) -> None:
        """`digest`: of the teacher, where one is all that is ever served."""
        about = {"service.name": "teacher", "service.version": __version__}
        if digest:
            about["teacher.digest"] = digest
        if "OTEL_SERVICE_NAME" in os.environ:
            del about["service.name"]
        timeout = None if "OTEL_EXPORTER_OTLP_TIMEOUT" in os.environ else EXPORT_SECONDS
        # Not the process's global one, and closed by us: nothing outlives the server or is shared with a library.
        self._provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=timeout)))
        self._tracer = self._provider.get_tracer("teacher", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def observer(self, digest: str = "") -> Observer:
        """What hears for the spans; `digest`: of the teacher whose requests these are."""
        return Observer(request=partial(self._on_request, digest))

    @contextmanager
    def span(self, name: str, headers: Mapping[str, str]) -> Iterator[None]:
        """The span of a call, for the time of a `with`."""
        parent = self._propagator.extract(headers)
        with self._tracer.start_as_current_span(name, parent, SpanKind.SERVER):
            yield

    def close(self) -> None:
        """Send what is left, if the collector takes it in time."""
        closing = threading.Thread(target=self._provider.shutdown, name="teacher-tracing", daemon=True)
        closing.start()
        closing.join(CLOSING_SECONDS)

    def _on_request(self, digest: str, report: RequestReport) -> None:
        """A request has ended within the current span: what is known of its times becomes spans of their own."""
        span = trace.get_current_span()
        span.set_attributes(
            {
                "teacher.request_id": current_id(),
                "teacher.outcome": report.outcome,
                "teacher.positions": report.positions,
                **({"teacher.digest": digest} if digest else {}),
            }
        )
        if report.outcome != OK:
            span.set_status(Status(StatusCode.ERROR, report.detail or report.outcome))
            return
        computed = time.time_ns()
        begun = computed - _ns(report.compute_s)
        for name, start, end in (("queue", begun - _ns(report.queue_s), begun), ("compute", begun, computed)):
            self._tracer.start_span(name, start_time=start).end(end)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
