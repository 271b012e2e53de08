"""Errors as HTTP statuses: the mapping, and the ones that only a service in trouble has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from teacher_server.addresses import TcpAddress
from teacher_server.errors import BadArtifact, BadSettings, Overloaded, TeacherError
from teacher_server.http_api import HttpDoor
from teacher_server.http_status import HTTP_STATUS_OF, error_response
from teacher_server.models import Models
from teacher_server.oip_service import InferenceModel
from teacher_server.service import Scores, Service
from tests.teacher_server.dense_clients import infer_json
from tests.teacher_server.gated import Gated, gated
from tests.teacher_server.scoring import dense_arrays_of, work_of
from tests.teacher_server.test_batcher import until
from tests.teacher_server.test_service import service

BODY = infer_json(dense_arrays_of(work_of([[1, 2, 3]], [[[6, 7]]])))
INFER = "/v2/models/teacher/infer"


def run(body: Callable[[httpx.AsyncClient, Gated], Awaitable[None]], kind: type[Service] = Service) -> None:
    """An HTTP door on a real port over a service of its own with a small queue."""

    async def whole() -> None:
        async with gated(kind) as served:
            door = HttpDoor(Models([served.model]))
            address = await door.start(TcpAddress("127.0.0.1", 0))
            try:
                async with httpx.AsyncClient(base_url=f"http://{address}", timeout=30) as client:
                    await body(client, served)
            finally:
                served.device.go.set()
                await door.stop(1)

    asyncio.run(whole())


def test_the_mapping_covers_every_request_error() -> None:
    only_at_start = {BadArtifact, BadSettings}
    assert set(HTTP_STATUS_OF) == set(TeacherError.__subclasses__()) - only_at_start
    assert len(set(HTTP_STATUS_OF.values())) == len(HTTP_STATUS_OF)
    assert not any(error.__subclasses__() for error in HTTP_STATUS_OF)


def test_the_wait_is_told_in_whole_seconds() -> None:
    for wait, told in ((0.0, "1"), (0.2, "1"), (1.0, "1"), (2.1, "3")):
        assert error_response(Overloaded("full", wait)).headers["Retry-After"] == told


def test_a_full_queue_is_429_with_the_time_to_wait() -> None:
    async def body(client: httpx.AsyncClient, served: Gated) -> None:
        served.device.go.clear()
        waiting = [asyncio.create_task(client.post(INFER, json=BODY))]
        await until(lambda: served.device.begun == 1)
        refused = None
        for _ in range(5):
            waiting.append(asyncio.create_task(client.post(INFER, json=BODY)))
            done, _ = await asyncio.wait({waiting[-1]}, timeout=0.5)
            if done:
                refused = waiting.pop().result()
                break
        assert refused is not None
        assert (refused.status_code, int(refused.headers["Retry-After"]) >= 1) == (429, True)
        assert "try again" in refused.json()["error"]
        served.device.go.set()
        assert {response.status_code for response in await asyncio.gather(*waiting)} == {200}

    run(body)


def test_a_device_that_fails_is_500_without_its_innards() -> None:
    async def body(client: httpx.AsyncClient, served: Gated) -> None:
        served.device.fault = "no kernel image"
        response = await client.post(INFER, json=BODY)
        assert (response.status_code, list(response.json())) == (500, ["error"])
        assert "Traceback" not in response.text
        served.device.fault = ""
        assert (await client.post(INFER, json=BODY)).status_code == 200

    run(body)


class Careless(Service):
    async def score(self, *_: Any, **__: Any) -> Scores:
        raise RuntimeError("/secret/path")


def test_what_nobody_expected_is_500_and_says_nothing() -> None:
    async def body(client: httpx.AsyncClient, served: Gated) -> None:
        response = await client.post(INFER, json=BODY)
        assert (response.status_code, response.json()) == (500, {"error": "internal error: see the server's log"})

    run(body, Careless)


def test_a_teacher_that_is_not_ready_is_503() -> None:
    async def whole() -> None:
        door = HttpDoor(Models([InferenceModel(service())]))
        address = await door.start(TcpAddress("127.0.0.1", 0))
        async with httpx.AsyncClient(base_url=f"http://{address}") as client:
            response = await client.post(INFER, json=BODY)
            assert (response.status_code, "starting" in response.json()["error"]) == (503, True)
            for page in ("/v2/health/ready", "/v2/models/teacher/ready"):
                response = await client.get(page)
                assert (response.status_code, response.json()["ready"]) == (503, False)
            assert (await client.get("/v2/health/live")).status_code == 200
        await door.stop(1)

    asyncio.run(whole())


def test_a_caller_that_goes_away_takes_its_work_along() -> None:
    async def body(client: httpx.AsyncClient, served: Gated) -> None:
        served.device.go.clear()
        first = asyncio.create_task(client.post(INFER, json=BODY))
        await until(lambda: served.device.begun == 1)
        async with httpx.AsyncClient(base_url=client.base_url) as other:
            impatient = asyncio.create_task(other.post(INFER, json=BODY))
            await asyncio.sleep(0.3)
            impatient.cancel()
            await asyncio.wait({impatient})
        await until(lambda: [report.outcome for report in served.reports] == ["Cancelled"])
        served.device.go.set()
        assert (await first).status_code == 200
        assert served.device.begun == 1

    run(body)
