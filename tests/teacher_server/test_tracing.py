"""Traces of a real server, received by an OTLP collector of the test's own."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from protos.teacher.v1 import teacher_pb2 as pb
from protos.teacher.v1 import teacher_pb2_grpc
from teacher_server.__main__ import main
from tests.serving import finished, serve, start, tiny_artifact, wait_until_ready
from tests.teacher_server.scoring import message_of, work_of

GOOD = message_of(work_of([[1, 2, 3]], [[[6, 7], [8, 9]]]))
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.about: dict[str, str] = {}

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        for of_resource in request.resource_spans:
            self.about = {each.key: each.value.string_value for each in of_resource.resource.attributes}
            self.spans += [span for scope in of_resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    tiny_artifact(tmp_path / "artifact")
    return tmp_path / "artifact"


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    """A collector and its URL."""
    keeper = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(keeper, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield keeper, f"http://127.0.0.1:{port}"
    server.stop(1).wait()


def attributes(span: Span) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def test_a_request_is_a_span_under_the_callers_with_its_queue_and_compute(
    artifact: Path, collector: tuple[Collector, str]
) -> None:
    keeper, url = collector
    with serve(artifact, "--otlp-endpoint", url) as teacher, grpc.insecure_channel(teacher.grpc) as channel:
        score = teacher_pb2_grpc.TeacherServiceStub(channel).Score
        traced = [("traceparent", f"00-{TRACE}-{PARENT}-01"), ("x-request-id", "job-1")]
        score(GOOD, timeout=10, metadata=traced)
        with pytest.raises(grpc.RpcError):
            score(message_of(work_of([[1]], [[[2, 3]]]), digest="cd" * 32), timeout=10)
        unsampled = [("traceparent", f"00-{TRACE}-{PARENT}-00")]
        score(GOOD, timeout=10, metadata=unsampled)
        digest = teacher.digest
        teacher.stop()  # which sends what is left
    assert (keeper.about["service.name"], keeper.about["teacher.digest"]) == ("teacher", digest)
    good, failed = [span for span in keeper.spans if span.name == "teacher.v1.TeacherService/Score"]
    assert (good.trace_id.hex(), good.parent_span_id.hex(), good.kind) == (TRACE, PARENT, Span.SPAN_KIND_SERVER)
    assert attributes(good) == {"teacher.request_id": "job-1", "teacher.outcome": "ok", "teacher.positions": 2}
    parts = {span.name: span for span in keeper.spans if span.parent_span_id == good.span_id}
    queue, compute = parts["queue"], parts["compute"]
    assert queue.end_time_unix_nano == compute.start_time_unix_nano
    assert compute.start_time_unix_nano < compute.end_time_unix_nano <= good.end_time_unix_nano
    assert good.start_time_unix_nano <= queue.start_time_unix_nano
    assert (failed.status.code, "is for teacher" in failed.status.message) == (Status.STATUS_CODE_ERROR, True)
    assert failed.trace_id.hex() != TRACE
    assert len(keeper.spans) == 4  # no part of a failed request, nothing of an unsampled one


def test_opentelemetrys_own_variables_count(artifact: Path, collector: tuple[Collector, str]) -> None:
    keeper, url = collector
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_SERVICE_NAME": "critic"}
    with serve(artifact, env=env) as teacher, grpc.insecure_channel(teacher.grpc) as channel:
        teacher_pb2_grpc.TeacherServiceStub(channel).Describe(pb.DescribeRequest(), timeout=10)
        teacher.stop()
    assert keeper.about["service.name"] == "critic"
    assert [span.name for span in keeper.spans] == ["teacher.v1.TeacherService/Describe"]


def test_it_can_be_switched_off(artifact: Path, collector: tuple[Collector, str]) -> None:
    keeper, url = collector
    with serve(artifact, "--otlp-endpoint", url, env={"OTEL_SDK_DISABLED": "true"}) as teacher:
        with grpc.insecure_channel(teacher.grpc) as channel:
            teacher_pb2_grpc.TeacherServiceStub(channel).Score(GOOD, timeout=10)
        teacher.stop()
    assert keeper.spans == []


@pytest.mark.slow
def test_a_collector_that_is_not_there_harms_nobody(artifact: Path) -> None:
    running = wait_until_ready(start(artifact, "--otlp-endpoint", "http://127.0.0.1:9"))
    with grpc.insecure_channel(running.grpc) as channel:
        for _ in range(3):
            teacher_pb2_grpc.TeacherServiceStub(channel).Score(GOOD, timeout=10)
    running.process.terminate()
    began = time.monotonic()
    finished(running.process, 0)
    assert time.monotonic() - began < 15


def test_without_the_extra_it_is_one_line(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "teacher_server.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    flags = ["--grpc-address", "127.0.0.1:0", "--http-address", "none", "--otlp-endpoint", "http://127.0.0.1:9"]
    monkeypatch.setattr(sys, "argv", ["teacher", "serve", str(artifact), *flags])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capfd.readouterr().err == (
        "teacher: error: traces need opentelemetry.sdk.resources: pip install 'hoser-distill[otel]'\n"
    )
