"""Several replicas under one name: how clients find them, and that connections that end lose no request."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx
import pytest

from protos.teacher.v1 import teacher_pb2_grpc
from tests.serving import RunningTeacher, serve
from tests.teacher_server.scoring import message_of, work_of

CALLERS = 8
AGE = 0.5  # seconds
FIRST, SECOND = "127.0.0.1", "127.0.0.2"
# By default a name is asked for every 30 s at most.
ROUND_ROBIN = (("grpc.lb_policy_name", "round_robin"), ("grpc.dns_min_time_between_resolutions_ms", 200))
ADDRESS, INTERNET, RESPONSE = 1, 1, 0x8180  # of the DNS: record type A, class IN, flags of an answer


class NameServer:
    """Answers each question for an IPv4 address with `addresses`, and no other question."""

    def __init__(self) -> None:
        self.addresses = [FIRST]
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def serve(self) -> None:
        while True:
            question, client = self._socket.recvfrom(512)
            if not question:
                return
            self._socket.sendto(self._answer(question), client)

    def stop(self) -> None:
        """Make `serve` return."""
        self._socket.sendto(b"", ("127.0.0.1", self.port))

    def close(self) -> None:
        self._socket.close()

    def _answer(self, question: bytes) -> bytes:
        end = question.index(b"\0", 12) + 5  # behind the name, its type and class
        (kind,) = struct.unpack(">H", question[end - 4 : end - 2])
        found = self.addresses if kind == ADDRESS else []
        head = question[:2] + struct.pack(">5H", RESPONSE, 1, len(found), 0, 0)
        records = [
            struct.pack(">HHHIH", 0xC00C, ADDRESS, INTERNET, 0, 4) + socket.inet_aton(address) for address in found
        ]
        return head + question[12:end] + b"".join(records)


@pytest.fixture
def names() -> Iterator[NameServer]:
    server = NameServer()
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server
    server.stop()
    thread.join()
    server.close()


@contextmanager
def replicas(artifact: Path, *flags: str) -> Iterator[tuple[RunningTeacher, RunningTeacher, int]]:
    """Two of them, at the same port of two addresses."""
    with serve(artifact, *flags) as first:
        port = int(first.grpc.rpartition(":")[2])
        with serve(artifact, *flags, env={"TEACHER_GRPC_ADDRESS": f"{SECOND}:{port}"}) as second:
            yield first, second, port


def answered(replica: RunningTeacher) -> int:
    text = httpx.get(f"{replica.http}/metrics").text
    match = re.search(r'teacher_requests_total\{outcome="ok"\} (\S+)', text)
    assert match
    return int(float(match[1]))


@dataclass
class Outcomes:
    """Of all calls of all callers."""

    answered: int = 0
    errors: list[grpc.RpcError] = field(default_factory=list)


@contextmanager
def calling(target: str) -> Iterator[Outcomes]:
    """Callers that ask over one channel, each without a pause, for the time of a `with`."""
    outcomes, stop = Outcomes(), threading.Event()
    message = message_of(work_of([[1, 2, 3]], [[[6, 7]]]))

    def call(stub: teacher_pb2_grpc.TeacherServiceStub) -> None:
        while not stop.is_set():
            try:
                stub.Score(message, timeout=20)
                outcomes.answered += 1
            except grpc.RpcError as error:
                outcomes.errors.append(error)

    with grpc.insecure_channel(target, options=ROUND_ROBIN) as channel, ThreadPoolExecutor(CALLERS) as threads:
        stub = teacher_pb2_grpc.TeacherServiceStub(channel)
        calls = [threads.submit(call, stub) for _ in range(CALLERS)]
        try:
            yield outcomes
        finally:
            stop.set()
    for each in calls:
        each.result()


def until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_a_new_replica_is_found_when_connections_age(artifact: Path, names: NameServer) -> None:
    with replicas(artifact, "--max-connection-age", str(AGE)) as (first, second, port):
        with calling(f"dns://127.0.0.1:{names.port}/teacher.test:{port}") as outcomes:
            assert until(lambda: answered(first) > 50, 20)
            assert answered(second) == 0
            names.addresses = [FIRST, SECOND]
            assert until(lambda: answered(second) > 50, 20)
            before = answered(first)
            assert until(lambda: answered(first) > before, 20)  # which goes on
        assert outcomes.errors == []


@pytest.mark.slow
def test_without_an_age_nobody_looks_for_new_replicas(artifact: Path, names: NameServer) -> None:
    with replicas(artifact) as (first, second, port), calling(f"dns://127.0.0.1:{names.port}/teacher.test:{port}"):
        assert until(lambda: answered(first) > 50, 20)
        names.addresses = [FIRST, SECOND]
        assert not until(lambda: answered(second) > 0, 4 * AGE)


@pytest.mark.slow
def test_no_request_is_lost_when_connections_age(artifact: Path) -> None:
    with replicas(artifact, "--max-connection-age", str(AGE)) as (first, second, port):
        with calling(f"ipv4:{FIRST}:{port},{SECOND}:{port}") as outcomes:
            time.sleep(10 * AGE)
        assert outcomes.errors == []
        assert outcomes.answered == answered(first) + answered(second)
        assert min(answered(first), answered(second)) > outcomes.answered / 4  # round_robin
