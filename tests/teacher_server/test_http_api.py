"""The HTTP door over a real port, through the life of a service."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest

from teacher_server.addresses import TcpAddress
from teacher_server.errors import BadSettings
from teacher_server.http_api import HttpDoor
from teacher_server.models import Models
from teacher_server.oip_service import InferenceModel
from tests.teacher_server.test_service import DIGEST, service

ANY_PORT = TcpAddress("127.0.0.1", 0)


def test_pages_follow_the_service_through_its_life() -> None:
    async def whole() -> None:
        teacher = service()
        door = HttpDoor(Models([InferenceModel(teacher)]))
        address = await door.start(ANY_PORT)
        async with httpx.AsyncClient(base_url=f"http://{address}") as client:

            async def expect(status: int, state: str) -> None:
                for page in ("/readyz", "/healthz"):
                    response = await client.get(page)
                    assert (response.status_code, response.json()["status"]) == (status, state)
                alive = await client.get("/livez")
                assert (alive.status_code, alive.json()) == (200, {"status": "alive"})

            await expect(503, "starting")
            await teacher.warm_up()
            await expect(200, "ready")
            await teacher.drain(1)
            await expect(503, "draining")
        await door.stop(1)
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncio.open_connection(address.host, address.port)

    asyncio.run(whole())


def test_health_says_which_teacher_this_is() -> None:
    async def whole() -> None:
        door = HttpDoor(Models([InferenceModel(service())]))
        address = await door.start(ANY_PORT)
        async with httpx.AsyncClient(base_url=f"http://{address}") as client:
            health = (await client.get("/healthz")).json()
            assert (health["digest"], health["compute_type"]) == (DIGEST, "float32")
            assert (await client.get("/no-such-page")).status_code == 404
            assert (await client.post("/readyz")).status_code == 405
        await door.stop(1)

    asyncio.run(whole())


def test_a_port_in_use_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = TcpAddress("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(BadSettings, match="Address already in use"):
            asyncio.run(HttpDoor(Models([InferenceModel(service())])).start(address))


def test_a_stuck_device_asks_for_a_restart_and_may_recover() -> None:
    async def whole() -> None:
        teacher = service()
        door = HttpDoor(Models([InferenceModel(teacher)]))
        address = await door.start(ANY_PORT)
        await teacher.warm_up()
        async with httpx.AsyncClient(base_url=f"http://{address}") as client:

            async def statuses() -> list[int]:
                return [(await client.get(page)).status_code for page in ("/livez", "/readyz")]

            assert await statuses() == [200, 200]
            teacher._batcher.on_stuck(True)
            assert await statuses() == [503, 503]
            teacher._batcher.on_stuck(False)
            assert await statuses() == [200, 200]
        await door.stop(1)
        await teacher.drain(1)

    asyncio.run(whole())
