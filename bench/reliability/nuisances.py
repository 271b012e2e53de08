"""Clients that do a server no good: silent, slow, gone, or in a hurry. Each runs until it is cut off or cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import grpc
import numpy as np

from bench.reliability.scenario import CELLS
from tests.teacher_server.scoring import message_of, work_of

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
# The first bytes of a TLS handshake: a record of 512 bytes is announced, of which no more comes.
HALF_HELLO = bytes([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3])
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4
INITIAL_WINDOW_SIZE = 4  # its number among the settings
LARGE = 500_000  # candidates, whose answer fills the buffers of two sockets with little room


@dataclass(frozen=True)
class Nuisances:
    """One server's bad clients. `cut_off` counts, by kind, whose connection the server has ended."""

    grpc: tuple[str, int]
    http: tuple[str, int]
    ca: Path
    started: Counter[str] = field(default_factory=Counter)
    cut_off: Counter[str] = field(default_factory=Counter)
    hurried: Counter[str] = field(default_factory=Counter)  # statuses of calls with a deadline of a millisecond

    @asynccontextmanager
    async def about(self, times: int) -> AsyncIterator[None]:
        """All kinds at once, each `times` at a time and again when cut off, for the time of an `async with`."""
        kinds: list[Callable[[], Awaitable[None]]] = [
            self.silent_grpc, self.silent_http, self.half_hello_grpc, self.half_hello_http, self.slow_header,
            self.slow_body, self.slow_reader, self.never_reading_http, self.never_reading_grpc,
            self.vanishing_http, self.vanishing_grpc,
        ]  # fmt: skip
        tasks = [asyncio.create_task(self._again(kind)) for kind in kinds for _ in range(times)]
        tasks.append(asyncio.create_task(self._hurry()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _again(self, kind: Callable[[], Awaitable[None]]) -> None:
        while True:
            self.started[kind.__name__] += 1
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await kind()
            self.cut_off[kind.__name__] += 1
            await asyncio.sleep(0.1)

    async def silent_grpc(self) -> None:
        async with _connected(self.grpc) as (reader, _):
            await _until_end(reader)

    async def silent_http(self) -> None:
        async with _connected(self.http) as (reader, _):
            await _until_end(reader)

    async def half_hello_grpc(self) -> None:
        await self._half_hello(self.grpc)

    async def half_hello_http(self) -> None:
        await self._half_hello(self.http)

    async def _half_hello(self, address: tuple[str, int]) -> None:
        async with _connected(address) as (reader, writer):
            writer.write(HALF_HELLO)
            await _until_end(reader)

    async def slow_header(self) -> None:
        async with self._https() as (_, writer):
            await _trickle(writer, b"GET /v2 HTTP/1.1\r\nX-Long: " + b"x" * 10_000)

    async def slow_body(self) -> None:
        async with self._https() as (_, writer):
            writer.write(_http_request(b"x" * 1000).removesuffix(b"x" * 1000))
            await _trickle(writer, b"x" * 1000)

    async def slow_reader(self) -> None:
        """Reads byte by byte; as buffers could be read long after the end, writing tells whether it was cut off."""
        async with self._https(small_buffers=True) as (reader, writer):
            writer.write(_large_request())
            probing = asyncio.create_task(_trickle(writer, b"GET /" + b"x" * 10_000))
            while await reader.read(1) and not probing.done():
                await asyncio.sleep(0.05)
            probing.cancel()

    async def never_reading_http(self) -> None:
        """Asks for a large answer; whether it was cut off is found by writing."""
        async with self._https(small_buffers=True) as (reader, writer):
            writer.write(_large_request())
            await reader.readexactly(1)
            cast(asyncio.Transport, writer.transport).pause_reading()
            await _trickle(writer, b"GET /" + b"x" * 10_000)

    async def never_reading_grpc(self) -> None:
        """Leaves no room for an answer and answers no ping."""
        async with self._https(self.grpc, "h2") as (reader, writer):
            writer.write(PREFACE + _frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, 0)) + _score_call())
            await _until_end(reader)

    async def vanishing_http(self) -> None:
        async with self._https() as (_, writer):
            writer.write(_large_request())
            await writer.drain()
            await asyncio.sleep(0.02)

    async def vanishing_grpc(self) -> None:
        async with self._https(self.grpc, "h2") as (_, writer):
            writer.write(PREFACE + _frame(SETTINGS, 0, 0, b"") + _score_call())
            await writer.drain()
            await asyncio.sleep(0.005)

    async def _hurry(self) -> None:
        """Calls that nobody can answer in time."""
        credentials = grpc.ssl_channel_credentials(self.ca.read_bytes())
        message = message_of(work_of([[1] * 1000], [[[1, 2]] * 1000])).SerializeToString()
        async with grpc.aio.secure_channel(f"{self.grpc[0]}:{self.grpc[1]}", credentials) as channel:
            score = channel.unary_unary("/teacher.v1.TeacherService/Score")
            while True:
                try:
                    await score(message, timeout=0.001)
                    self.hurried["OK"] += 1
                except grpc.aio.AioRpcError as error:
                    self.hurried[error.code().name] += 1
                await asyncio.sleep(0.02)

    def _https(
        self, address: tuple[str, int] | None = None, protocol: str = "http/1.1", *, small_buffers: bool = False
    ) -> contextlib.AbstractAsyncContextManager[Streams]:
        context = ssl.create_default_context(cafile=str(self.ca))
        context.set_alpn_protocols([protocol])
        return _connected(address or self.http, context, small_buffers)


@asynccontextmanager
async def _connected(
    address: tuple[str, int], context: ssl.SSLContext | None = None, small_buffers: bool = False
) -> AsyncIterator[Streams]:
    plain = socket.socket()
    plain.setblocking(False)
    if small_buffers:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    try:
        await asyncio.get_running_loop().sock_connect(plain, address)
        name = address[0] if context else None
        reader, writer = await asyncio.open_connection(sock=plain, ssl=context, server_hostname=name, limit=4096)
    except BaseException:
        plain.close()
        raise
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _until_end(reader: asyncio.StreamReader) -> None:
    while await reader.read(65_536):
        pass


async def _trickle(writer: asyncio.StreamWriter, text: bytes) -> None:
    """A byte every half second, until the connection is gone."""
    for number in range(len(text)):
        if writer.transport.is_closing():
            return
        writer.write(text[number : number + 1])
        await writer.drain()
        await asyncio.sleep(0.5)


def _http_request(body: bytes, more: str = "") -> bytes:
    head = f"POST /v2/models/teacher/infer HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def _large_request() -> bytes:
    """One history, LARGE candidates, in binary data there and back."""
    arrays = {
        "HISTORY": np.ones((1, 1), np.int32),
        "HISTORY_LENGTH": np.ones((1, 1), np.int32),
        "CANDIDATES": (np.arange(LARGE, dtype=np.int32) % CELLS)[None, None],
        "CANDIDATE_COUNT": np.full((1, 1), LARGE, np.int32),
    }
    inputs = [
        {"name": n, "datatype": "INT32", "shape": a.shape, "parameters": {"binary_data_size": a.nbytes}}
        for n, a in arrays.items()
    ]
    text = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    body = text + b"".join(array.tobytes() for array in arrays.values())
    return _http_request(body, f"Inference-Header-Content-Length: {len(text)}\r\n")


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return struct.pack(">I", len(content))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + content


def _score_call() -> bytes:
    """A whole call on stream 1, with a history long enough to be computed for a while."""
    message = message_of(work_of([[1] * 1000], [[[1, 2]] * 1000])).SerializeToString()
    headers = {
        ":method": "POST", ":scheme": "https", ":path": "/teacher.v1.TeacherService/Score", ":authority": "a",
        "content-type": "application/grpc", "te": "trailers",
    }  # fmt: skip
    # Each a literal that is not to be remembered, name and value as they are (RFC 7541, 6.2.2).
    block = b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in headers.items()
    )
    data = b"\0" + struct.pack(">I", len(message)) + message
    return _frame(HEADERS, END_HEADERS, 1, block) + _frame(DATA, END_STREAM, 1, data)
