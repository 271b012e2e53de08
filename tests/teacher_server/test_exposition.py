"""`/metrics` of a real service over a real port, read by Prometheus's own parsers."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from teacher_server.addresses import TcpAddress
from teacher_server.batcher import Batcher
from teacher_server.description import TeacherDescription
from teacher_server.device_memory import DeviceMemory
from teacher_server.errors import InvalidRequest, TooLarge, WrongTeacher
from teacher_server.http_api import HttpDoor
from teacher_server.metrics import Metrics
from teacher_server.models import Models
from teacher_server.monitor_api import monitor_router
from teacher_server.oip_service import InferenceModel
from teacher_server.service import Service
from tests.teacher_server.scoring import SPECIAL, packer, tiny_engine
from tests.teacher_server.test_service import DIGEST, GOOD, GRID, LIMITS, MODEL

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "teacher.md"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def model() -> InferenceModel:
    """A model whose service and batcher report to its metrics."""
    metrics = Metrics(token_budget=256)
    batcher = Batcher(tiny_engine(MODEL).log_probs, packer(), 10_000, observer=metrics.observer)
    description = TeacherDescription(MODEL.config, SPECIAL, GRID, {}, DIGEST)
    service = Service(description, "float32", batcher, LIMITS, metrics.observer)
    return InferenceModel(service, "lmtad", metrics)


def run(body: Callable[[InferenceModel, httpx.AsyncClient], Awaitable[None]]) -> None:
    async def whole() -> None:
        served = model()
        models = Models([served])
        door = HttpDoor(models, [monitor_router(models, DeviceMemory(torch.device("cpu")))])
        address = await door.start(TcpAddress("127.0.0.1", 0))
        try:
            async with httpx.AsyncClient(base_url=f"http://{address}") as client:
                await body(served, client)
        finally:
            await served.service.drain(5)
            await door.stop(1)

    asyncio.run(whole())


async def scraped(client: httpx.AsyncClient) -> Samples:
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(response.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """Of the model, where the name has a sample of each."""
    of_model = frozenset((labels | {"model": "lmtad"}).items())
    return samples[name, of_model if (name, of_model) in samples else frozenset(labels.items())]


def test_what_was_asked_is_what_is_counted() -> None:
    async def body(served: InferenceModel, client: httpx.AsyncClient) -> None:
        service = served.service
        assert value(await scraped(client), "teacher_ready") == 0
        await service.warm_up()
        before = await scraped(client)
        assert value(before, "teacher_ready") == 1
        for _ in range(3):
            await service.score(GOOD)
        with pytest.raises(WrongTeacher):
            await service.score(GOOD, "cd" * 32)
        with pytest.raises(TooLarge):
            await service.score(dataclasses.replace(GOOD, lengths=np.ones(9, np.int64)))
        with pytest.raises(InvalidRequest), service.reading():
            raise InvalidRequest("nothing that a door could read")
        after = await scraped(client)

        def grown(name: str, **labels: str) -> float:
            return value(after, name, **labels) - value(before, name, **labels)

        outcomes = ("ok", "WrongTeacher", "TooLarge", "InvalidRequest", "Overloaded")
        assert [grown("teacher_requests_total", outcome=each) for each in outcomes] == [3, 1, 1, 1, 0]
        assert grown("teacher_positions_total") == 3 * len(GOOD.candidate_counts)
        assert grown("teacher_request_duration_seconds_count") == 3
        assert grown("teacher_request_duration_seconds_bucket", le="+Inf") == 3
        assert grown("teacher_batch_duration_seconds_count") == 3
        assert grown("teacher_batch_requests_sum") == 3
        assert grown("teacher_padded_tokens_total") >= grown("teacher_tokens_total") > 0
        assert grown("teacher_rows_total") > 0
        lmtad = {"model": "lmtad", "version": "1"}
        assert grown("nv_inference_request_success", **lmtad) == 3
        assert grown("nv_inference_request_failure", reason="OTHER", **lmtad) == 3
        assert grown("nv_inference_exec_count", **lmtad) == 3
        assert grown("nv_inference_request_duration_us", **lmtad) >= grown(
            "nv_inference_compute_infer_duration_us", **lmtad
        )
        assert value(after, "teacher_token_budget") == 256
        assert value(after, "teacher_device_memory_bytes", kind="resident") > 1e7
        assert value(after, "process_open_fds") > 0
        [info] = [dict(labels) for name, labels in after if name == "teacher_info"]
        assert (info["digest"], info["compute_type"]) == (DIGEST, "float32")

    run(body)


def test_the_state_is_one_of_all() -> None:
    async def body(served: InferenceModel, client: httpx.AsyncClient) -> None:
        await served.service.warm_up()
        await served.service.drain(1)
        samples = await scraped(client)
        states = {
            dict(labels)["teacher_state"]: held for (name, labels), held in samples.items() if name == "teacher_state"
        }
        assert states == {"starting": 0, "ready": 0, "stuck": 0, "leaving": 0, "draining": 1}
        assert value(samples, "teacher_ready") == 0

    run(body)


def test_openmetrics_where_it_is_preferred() -> None:
    async def body(served: InferenceModel, client: httpx.AsyncClient) -> None:
        accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
        response = await client.get("/metrics", headers={"accept": accept})
        assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert response.text.endswith("# EOF\n")
        families = {family.name: family.type for family in parse_openmetrics(response.text)}
        assert families["teacher_requests"] == "counter"
        assert families["teacher_state"] == "stateset"
        assert families["nv_inference_request_success"] == "unknown"

    run(body)


def test_the_document_names_every_metric() -> None:
    async def body(served: InferenceModel, client: httpx.AsyncClient) -> None:
        text = DOCUMENT.read_text()
        families = list(parse_text((await client.get("/metrics")).text))
        ours = {family.name for family in families if family.name.startswith(("teacher", "nv_"))}
        assert len(ours) > 25
        assert {name for name in ours if f"`{name}" not in text} == set()

    run(body)


def test_a_gpu_tells_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[str, Any] = {
        "memory_allocated": 10,
        "memory_reserved": 20,
        "mem_get_info": (70, 100),
        "get_device_properties": SimpleNamespace(uuid="1-2"),
    }
    for name, result in known.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, result=result: result)
    memory = DeviceMemory(torch.device("cuda"))
    assert memory.by_kind() == {"allocated": 10, "reserved": 20}
    told = {name: (labels, size) for name, labels, size in memory.as_triton()}
    assert told["nv_gpu_memory_used_bytes"] == ({"gpu_uuid": "GPU-1-2"}, 30)
    assert told["nv_gpu_memory_total_bytes"] == ({"gpu_uuid": "GPU-1-2"}, 100)
