"""The real Prometheus server scrapes a real teacher, and promtool reads its page."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.scraped import ask, prometheus, result
from tests.serving import RunningTeacher

pytestmark = pytest.mark.system


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
