"""The real Prometheus server scrapes a real teacher, and promtool reads its page."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from protos.teacher.v1 import teacher_pb2_grpc
from tests.serving import RunningTeacher
from tests.teacher_server.scoring import message_of, work_of

pytestmark = pytest.mark.system

WORK = work_of([[1, 2, 3]], [[[4, 5], [6, 7, 8]]])
CONFIG = """
global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs:
  - job_name: teacher
    static_configs: [{{targets: ["{target}"]}}]
"""


def ask(teacher: RunningTeacher, times: int) -> None:
    with grpc.insecure_channel(teacher.grpc) as channel:
        stub = teacher_pb2_grpc.TeacherServiceStub(channel)
        for _ in range(times):
            stub.Score(message_of(WORK), timeout=10)
        with pytest.raises(grpc.RpcError):
            stub.Score(message_of(WORK, digest="cd" * 32), timeout=10)


@contextmanager
def prometheus(target: str, folder: Path) -> Iterator[str]:
    """A Prometheus server of one target, for the time of a `with`; its base URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = folder / "prometheus.yml"
    config.write_text(CONFIG.format(target=target))
    flags = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["prometheus", *flags], stdout=log, stderr=log)
        try:
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(30)


def result(server: str, query: str) -> list[Any]:
    try:
        answer = httpx.get(f"{server}/api/v1/query", params={"query": query}).json()
    except httpx.TransportError:  # it is not up yet
        return []
    assert answer["status"] == "success", answer
    return list(answer["data"]["result"])


def until(server: str, query: str, expected: float) -> None:
    """Wait until the query has this single value."""
    deadline, seen = time.monotonic() + 30, None
    while time.monotonic() < deadline:
        if (found := result(server, query)) and (seen := float(found[0]["value"][1])) == expected:
            assert len(found) == 1
            return
        time.sleep(0.1)
    raise AssertionError(f"{query} is {seen}, not {expected}")


def test_prometheus_scrapes_a_teacher_under_load(teacher: RunningTeacher, tmp_path: Path) -> None:
    assert teacher.http is not None
    with prometheus(teacher.http.removeprefix("http://"), tmp_path) as server:
        until(server, "up", 1)
        ask(teacher, times=5)
        until(server, 'teacher_requests_total{outcome="ok"}', 5)
        until(server, 'teacher_requests_total{outcome="WrongTeacher"}', 1)
        until(server, 'nv_inference_request_success{model="teacher",version="1"}', 5)
        until(server, "teacher_positions_total", 10)
        until(server, f'teacher_info{{digest="{teacher.digest}"}}', 1)
        median = "histogram_quantile(0.5, teacher_request_duration_seconds_bucket)"
        assert 0 < float(result(server, median)[0]["value"][1]) < 1
        [target] = httpx.get(f"{server}/api/v1/targets").json()["data"]["activeTargets"]
        assert (target["health"], target["lastError"]) == ("up", "")


def test_promtool_finds_fault_with_tritons_names_only(teacher: RunningTeacher) -> None:
    page = httpx.get(f"{teacher.http}/metrics").text
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, timeout=30)
    faults = checked.stderr.splitlines()
    assert checked.returncode == 3  # it reads the page, and has something to say
    assert [fault for fault in faults if not fault.startswith("nv_inference_")] == []
    assert {fault.split(" ", 1)[1] for fault in faults} == {"metric names should not contain abbreviated units"}
