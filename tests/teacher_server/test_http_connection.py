"""HTTP clients that send or read slowly, too much or too many, against a real port."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn

from teacher_server import http_connection
from teacher_server.addresses import TcpAddress, bind_tcp
from teacher_server.http_connection import server_config
from teacher_server.http_guard import HttpGuard
from teacher_server.limits import Connections
from teacher_server.security import Access

PATIENCE = 0.5
LARGE = 64 << 20  # bytes: more than the buffers of two sockets
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Pages:
    """An application with a large page, one that waits, and one that reads what it is sent."""

    def __init__(self) -> None:
        self.running = 0
        self.go_on = asyncio.Event()
        self.server: uvicorn.Server | None = None

    def connections(self) -> int:
        """How many are open."""
        assert self.server is not None
        return len(self.server.server_state.connections)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.running += 1
        try:
            await self._answer(scope["path"], receive, send)
        finally:
            self.running -= 1

    async def _answer(self, page: str, receive: Any, send: Any) -> None:
        if page == "/wait":
            await self.go_on.wait()
        more = page == "/read"
        while more:
            message = await receive()
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        body = b"0" * (LARGE - 1) + b"1" if page == "/large" else b"fine"
        await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def served(pages: Pages, max_requests: int = 64) -> AsyncIterator[TcpAddress]:
    connections = Connections(http_timeout=PATIENCE)
    server = uvicorn.Server(server_config(HttpGuard(pages, Access(), max_requests), connections, Access()))
    pages.server = server
    bound = bind_tcp(TcpAddress("127.0.0.1", 0))
    task = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        while not server.started:
            await asyncio.sleep(0.005)
        yield TcpAddress("127.0.0.1", bound.getsockname()[1])
    finally:
        server.config.timeout_graceful_shutdown = 1
        server.should_exit = True
        await task


def run(test: Callable[[Pages, TcpAddress], Awaitable[None]], max_requests: int = 64) -> None:
    async def whole() -> None:
        pages = Pages()
        async with served(pages, max_requests) as address:
            await asyncio.wait_for(test(pages, address), 60)

    asyncio.run(whole())


@asynccontextmanager
async def connected(address: TcpAddress) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(address.host, address.port, limit=2 * LARGE)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def until_cut_off(client: Client) -> float:
    """Seconds until the server ends the connection."""
    started = time.monotonic()
    with contextlib.suppress(ConnectionResetError):
        while await client[0].read(65_536):
            pass
    return time.monotonic() - started


async def trickle(client: Client, text: bytes) -> None:
    """Byte for byte, each well within the patience, for as long as the connection lasts."""
    with contextlib.suppress(ConnectionError):
        for number in range(len(text)):
            client[1].write(text[number : number + 1])
            await client[1].drain()
            await asyncio.sleep(PATIENCE / 10)


def test_who_says_nothing_is_cut_off() -> None:
    async def test(pages: Pages, address: TcpAddress) -> None:
        async with connected(address) as client:
            assert PATIENCE * 0.9 < await until_cut_off(client) < 5

    run(test)


@pytest.mark.parametrize("start", [b"", b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"])
def test_who_sends_drop_by_drop_is_cut_off(start: bytes) -> None:
    async def test(pages: Pages, address: TcpAddress) -> None:
        async with connected(address) as client:
            client[1].write(start)
            sending = asyncio.create_task(trickle(client, b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 200))
            await asyncio.sleep(PATIENCE / 2)
            assert pages.running == bool(start)
            assert await until_cut_off(client) < 5
            await sending
            assert pages.running == 0

    run(test)


def test_the_second_request_of_a_connection_is_bounded_too() -> None:
    async def test(pages: Pages, address: TcpAddress) -> None:
        async with connected(address) as client:
            whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
            half = b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1"
            client[1].write(whole + half)  # at once: the second one lies in a buffer while the first is answered
            assert b"200" in await client[0].readuntil(b"fine")
            assert await until_cut_off(client) < 5
            await asyncio.sleep(0.05)
            assert pages.running == 0

    run(test)


def test_who_does_not_read_is_cut_off() -> None:
    async def test(pages: Pages, address: TcpAddress) -> None:
        async with connected(address) as (reader, writer):
            writer.write(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
            await reader.readexactly(10)
            writer.transport.pause_reading()
            started = time.monotonic()
            while pages.connections():
                await asyncio.sleep(0.01)
            assert PATIENCE * 0.8 < time.monotonic() - started < 5

    run(test)


def test_who_reads_in_time_may_go_on() -> None:
    async def test(pages: Pages, address: TcpAddress) -> None:
        async with connected(address) as (reader, writer):
            for _ in range(2):
                writer.write(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
                await reader.readuntil(b"0" * 100)
                assert len(await reader.readuntil(b"1")) < LARGE
                await asyncio.sleep(PATIENCE * 1.2)  # the clock has stopped

    run(test)


def test_an_answer_may_take_longer_than_the_patience() -> None:
    async def test(pages: Pages, address: TcpAddress) -> None:
        async with httpx.AsyncClient(base_url=f"http://{address}") as client:
            asking = asyncio.create_task(client.get("/wait"))
            await asyncio.sleep(PATIENCE * 2)
            pages.go_on.set()
            assert (await asking).text == "fine"

    run(test)


def test_so_many_requests_at_a_time_and_health_besides() -> None:
    async def test(pages: Pages, address: TcpAddress) -> None:
        async with httpx.AsyncClient(base_url=f"http://{address}") as client:
            waiting = [asyncio.create_task(client.get("/wait")) for _ in range(2)]
            while pages.running < 2:
                await asyncio.sleep(0.01)
            refused = await client.get("/read")
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert "2 HTTP requests" in refused.json()["error"]
            for page in ("/livez", "/v2/health/ready", "/metrics"):
                assert (await client.get(page)).status_code == 200
            pages.go_on.set()
            assert [(await answer).status_code for answer in waiting] == [200, 200]
            assert (await client.get("/read")).status_code == 200

    run(test, max_requests=2)


@pytest.mark.parametrize("request_line", [b"GET /" + b"x" * 20_000, b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000])
def test_headers_are_bounded(request_line: bytes) -> None:
    async def test(pages: Pages, address: TcpAddress) -> None:
        async with connected(address) as (reader, writer):
            writer.write(request_line)
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b"server:" not in answer.lower()  # nor does anybody learn what serves here

    run(test)


def test_so_many_connections_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "MAX_CONNECTIONS", 3)

    async def test(pages: Pages, address: TcpAddress) -> None:
        async with contextlib.AsyncExitStack() as open_ones:
            for _ in range(3):
                await open_ones.enter_async_context(connected(address))
            async with connected(address) as extra:
                assert await until_cut_off(extra) < PATIENCE / 2
        await asyncio.sleep(0.05)
        async with httpx.AsyncClient(base_url=f"http://{address}") as client:
            assert (await client.get("/livez")).status_code == 200

    run(test)
