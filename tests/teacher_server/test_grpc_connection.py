"""The bounds of a gRPC connection, seen by a client that speaks HTTP/2 frame by frame."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from teacher_server.grpc_connection import (
    AGE_GRACE_SECONDS,
    CLIENT_PING_SECONDS,
    HANDSHAKE_SECONDS,
    PING_SECONDS,
    connection_options,
)
from teacher_server.limits import Connections
from tests.serving import RunningTeacher, serve, tiny_artifact

SETTINGS, PING, GOAWAY = 4, 6, 7
ACK = 1
MAX_CONCURRENT_STREAMS = 3  # its number among the settings
KEEPALIVE = 1.0


class RawClient:
    """One HTTP/2 connection; of what asks for an answer it answers the settings by itself, no more."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=20)
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.send(SETTINGS)

    def send(self, kind: int, content: bytes = b"", flags: int = 0) -> None:
        """Nothing if the server has closed the connection: what it said before is still to be read."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(struct.pack(">I", len(content))[1:] + bytes([kind, flags, 0, 0, 0, 0]) + content)

    def frames(self) -> Iterator[tuple[int, int, bytes]]:
        """Kind, flags and content of the server's frames, until it closes the connection."""
        while len(head := self._exactly(9)) == 9:
            kind, flags, content = head[3], head[4], self._exactly(int.from_bytes(head[:3]))
            if kind == SETTINGS and not flags & ACK:
                self.send(SETTINGS, flags=ACK)
            yield kind, flags, content

    def close(self) -> None:
        self._socket.close()

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            try:
                part = self._socket.recv(size - len(found))
            except ConnectionResetError:
                return b""
            if not part:
                return b""
            found += part
        return found


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTeacher]:
    folder = tmp_path_factory.mktemp("teacher") / "artifact"
    tiny_artifact(folder)
    flags = ["--keepalive", str(KEEPALIVE), "--max-concurrent-streams", "7", "--http-address", "none"]
    with serve(folder, *flags) as running:
        yield running


@contextmanager
def connected(teacher: RunningTeacher) -> Iterator[RawClient]:
    client = RawClient(teacher.grpc)
    try:
        yield client
    finally:
        client.close()


def test_the_server_says_how_many_calls_it_takes_at_a_time(teacher: RunningTeacher) -> None:
    with connected(teacher) as client:
        content = next(content for kind, flags, content in client.frames() if kind == SETTINGS and not flags & ACK)
    pairs = dict(struct.iter_unpack(">HI", content))
    assert pairs[MAX_CONCURRENT_STREAMS] == 7


def gone_without_a_word(teacher: RunningTeacher) -> None:
    started = time.monotonic()
    with connected(teacher) as client:
        seen = [kind for kind, _, _ in client.frames()]  # it ends, since the pings are not answered
    assert PING in seen
    assert KEEPALIVE < time.monotonic() - started < KEEPALIVE + PING_SECONDS + 4


def answering(teacher: RunningTeacher) -> None:
    """It also pings by itself, as often as it may."""
    until = time.monotonic() + KEEPALIVE + PING_SECONDS + 2
    with connected(teacher) as client:
        last = 0.0
        for kind, flags, content in client.frames():
            assert kind != GOAWAY, content
            if kind == PING and not flags & ACK:
                client.send(PING, content, ACK)
            if time.monotonic() - last > CLIENT_PING_SECONDS * 1.1:
                last = time.monotonic()
                client.send(PING, b"12345678")
            if last > until:
                return
    pytest.fail("the server closed the connection")


def never_saying_hello(teacher: RunningTeacher) -> None:
    host, _, port = teacher.grpc.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=HANDSHAKE_SECONDS + 5) as silent:
        while silent.recv(1000):  # the server's own settings, then the end
            pass


@pytest.mark.slow
def test_clients_that_are_gone_are_cut_off_and_only_they(teacher: RunningTeacher) -> None:
    with ThreadPoolExecutor() as threads:
        clients = [threads.submit(kind, teacher) for kind in (gone_without_a_word, answering, never_saying_hello)]
    for client in clients:
        client.result()


def test_one_that_pings_too_often_is_sent_away(teacher: RunningTeacher) -> None:
    with connected(teacher) as client:
        for _ in range(10):
            client.send(PING, b"12345678")
        goaway = next(content for kind, _, content in client.frames() if kind == GOAWAY)
    assert b"too_many_pings" in goaway


def test_calls_on_an_old_connection_do_not_hold_it_for_ever() -> None:
    options = dict(connection_options(Connections(max_age=60.0), 1))
    assert options["grpc.max_connection_age_ms"] == 60_000
    assert options["grpc.max_connection_age_grace_ms"] == AGE_GRACE_SECONDS * 1000
