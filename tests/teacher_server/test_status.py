"""The status record, and the page's files: what they show is in the record, and nothing comes from outside."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from teacher_server.addresses import TcpAddress
from teacher_server.device_memory import DeviceMemory
from teacher_server.errors import WrongTeacher
from teacher_server.http_api import HttpDoor
from teacher_server.http_guard import METRICS_PAGES
from teacher_server.models import Models
from teacher_server.monitor_api import FILES, PAGE, monitor_router
from teacher_server.oip_service import InferenceModel
from teacher_server.recent import RATE_SECONDS, WINDOW, Recent
from teacher_server.reports import OK, BatchReport, RequestReport
from teacher_server.status import Queue, status_of
from tests.teacher_server.gated import gated
from tests.teacher_server.scoring import work_of
from tests.teacher_server.test_exposition import model
from tests.teacher_server.test_service import DIGEST, GOOD, GRID, LIMITS

ROOT = Path(__file__).resolve().parents[2]
CPU = DeviceMemory(torch.device("cpu"))
HTML = (PAGE / "index.html").read_text()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def served(clock: Clock) -> InferenceModel:
    """A model whose recent past is by the clock of the test."""
    made = model()
    made.metrics.recent = Recent(clock)
    return made


def with_pages(served: InferenceModel, body: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def whole() -> None:
        door = HttpDoor(Models([served]), [monitor_router(Models([served]), CPU)])
        address = await door.start(TcpAddress("127.0.0.1", 0))
        try:
            async with httpx.AsyncClient(base_url=f"http://{address}") as client:
                await body(client)
        finally:
            await served.service.drain(5)
            await door.stop(1)

    asyncio.run(whole())


def test_nothing_has_happened_yet(served: InferenceModel) -> None:
    status = status_of(Models([served]), CPU)
    assert (status.state, status.rates.positions, status.device.busy) == ("starting", 0, 0)
    assert (status.latency_ms.p99, status.latency_ms.waiting, status.batches.padding) == (None, None, None)
    assert (status.queue.requests, status.queue.tokens, status.queue.fill) == (0, 0, 0)
    assert status.totals.outcomes == {}
    assert {len(line) for line in vars(status.series).values()} == {WINDOW}
    assert not any(value for line in vars(status.series).values() for value in line)


def test_what_has_happened(served: InferenceModel, clock: Clock) -> None:
    metrics = served.metrics
    for total_s in (0.1, 0.1, 0.4, 0.1):
        metrics.on_request(RequestReport(OK, total_s, positions=50, queue_s=0.02, compute_s=0.06))
    metrics.on_request(RequestReport("Overloaded", 0.0, positions=9))
    for tokens in (30, 50):
        metrics.on_batch(BatchReport(3, rows=4, positions=5, row_tokens=100, tokens=tokens, padded=80, seconds=0.25))
    metrics.on_out_of_memory(128)
    clock.now += 1
    status = status_of(Models([served]), CPU)
    assert vars(status.rates) == {
        name: count / RATE_SECONDS
        for name, count in {"positions": 200, "requests": 4, "failed": 1, "batches": 2}.items()
    }
    latency = status.latency_ms
    assert (latency.p50, latency.p95, latency.p99) == (
        pytest.approx(100, rel=0.026),
        pytest.approx(400, rel=0.026),
        pytest.approx(400, rel=0.026),
    )
    assert (latency.waiting, latency.computing) == (pytest.approx(20), pytest.approx(60))
    assert vars(status.batches) == pytest.approx({"requests": 3, "tokens": 80, "padding": 0.5, "duplicate": 0.6})
    assert (status.device.busy, status.device.token_budget, status.device.out_of_memory) == (0.5 / RATE_SECONDS, 128, 1)
    assert status.totals.outcomes == {OK: 4, "Overloaded": 1}
    assert status.totals.positions == 200
    last = {name: line[-1] for name, line in vars(status.series).items()}
    assert last == pytest.approx(
        {
            "positions": 200,
            "requests": 4,
            "failed": 1,
            "p50": latency.p50,
            "p95": latency.p95,
            "p99": latency.p99,
            "batch_requests": 3,
            "busy": 0.5,
        }
    )
    assert all(line[-2] in (0, None) for line in vars(status.series).values())


def test_what_waits() -> None:
    async def whole() -> None:
        async with gated() as teacher:
            teacher.device.go.clear()
            small = work_of([[1, 2]], [[[3, 4]]])
            asked = [asyncio.create_task(teacher.model.service.score(small))]
            while not teacher.device.begun:
                await asyncio.sleep(0.01)
            asked.append(asyncio.create_task(teacher.model.service.score(small)))
            await asyncio.sleep(0.05)
            assert status_of(Models([teacher.model]), CPU).queue == Queue(
                requests=1, tokens=3, most_tokens=4, fill=0.75
            )
            teacher.device.go.set()
            await asyncio.gather(*asked)
            assert status_of(Models([teacher.model]), CPU).queue == Queue(0, 0, 4, 0.0)

    asyncio.run(whole())


def test_the_page_of_a_real_service(served: InferenceModel, clock: Clock) -> None:
    async def body(client: httpx.AsyncClient) -> None:
        await served.service.warm_up()
        await served.service.score(GOOD)
        with pytest.raises(WrongTeacher):
            await served.service.score(GOOD, "cd" * 32)
        clock.now += 1
        answer = await client.get("/status.json")
        assert answer.headers["cache-control"] == "no-store"
        record = answer.json()
        assert record["state"] == "ready"
        assert record["totals"]["outcomes"] == {"ok": 1, "WrongTeacher": 1}
        assert record["rates"]["positions"] == len(GOOD.candidate_counts) / RATE_SECONDS
        assert record["latency_ms"]["p50"] > 0
        assert record["device"]["memory"]["resident"] < record["device"]["memory_total"]
        identity = record["model"]
        assert (identity["name"], identity["digest"], identity["compute_type"]) == ("lmtad", DIGEST, "float32")
        assert (identity["grid"], identity["limits"]) == (vars(GRID), vars(LIMITS))
        assert len(answer.content) < 20_000
        shown = re.findall(r'data-(?:show|bar)="([^"]+)"', HTML)
        assert len(shown) > 30
        assert [path for path in shown if not has(record, path)] == []
        lines = " ".join(re.findall(r'data-lines="([^"]+)"', HTML)).split()
        assert set(lines) == {*record["series"], "waiting"}
        described = (await client.get("/openapi.json")).json()["paths"]
        assert "/status.json" in described

    with_pages(served, body)


def has(record: Any, path: str) -> bool:
    for name in path.split("."):
        if name not in record:
            return False
        record = record[name]
    return True


def test_the_files_bring_their_own_law(served: InferenceModel) -> None:
    async def body(client: httpx.AsyncClient) -> None:
        for path, (name, media_type) in FILES.items():
            answer = await client.get(path)
            assert answer.content == (PAGE / name).read_bytes()
            assert answer.headers["content-type"] == f"{media_type}; charset=utf-8"
            assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"

    with_pages(served, body)


def test_nothing_inline_and_nothing_from_outside() -> None:
    assert not re.search(r"<style|<script(?! src=)|\son\w+=|\sstyle=", HTML)
    for name, _ in FILES.values():
        text = (PAGE / name).read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|url\(|@import|src=\"(?!status\.js)", text), name


def test_all_parts_follow_the_rule_of_metrics(served: InferenceModel) -> None:
    assert {route.path for route in monitor_router(Models([served]), CPU).routes} == METRICS_PAGES  # type: ignore[attr-defined]


def test_the_package_holds_the_page(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "teacher_server", tmp_path / "teacher_server")
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    built = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        assert {f"teacher_server/status_page/{name}" for name, _ in FILES.values()} <= set(wheel.namelist())
