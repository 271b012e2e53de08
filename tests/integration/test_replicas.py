"""Several replicas under one name: how clients find them, and that connections that end lose no request."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from bench.hosts.names import Names
from protos.teacher.v1 import teacher_pb2_grpc
from tests.serving import RunningTeacher, counted, serve
from tests.teacher_server.scoring import message_of, work_of

CALLERS = 8
AGE = 0.5  # seconds
FIRST, SECOND = "127.0.0.1", "127.0.0.2"
NAME = "teacher.test"
# By default a name is asked for every 30 s at most.
ROUND_ROBIN = (("grpc.lb_policy_name", "round_robin"), ("grpc.dns_min_time_between_resolutions_ms", 200))


@dataclass(frozen=True)
class NameServer:
    """A real one on this machine."""

    names: Names
    port: int

    def lead_to(self, *addresses: str) -> None:
        self.names.lead(NAME, *addresses)


@pytest.fixture
def name_server(tmp_path: Path) -> Iterator[NameServer]:
    port = free_port()

    def here(*words: str, **how: Any) -> subprocess.Popen[str]:
        where = (f"--port={port}", "--listen-address=127.0.0.1", "--bind-interfaces")
        return subprocess.Popen([*words, *where], text=True, **how)

    names = Names(here, tmp_path, {NAME: [FIRST]})
    yield NameServer(names, port)
    names.stop()


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def replicas(artifact: Path, *flags: str) -> Iterator[tuple[RunningTeacher, RunningTeacher, int]]:
    """Two of them, at the same port of two addresses."""
    with serve(artifact, *flags) as first:
        port = int(first.grpc.rpartition(":")[2])
        with serve(artifact, *flags, env={"TEACHER_GRPC_ADDRESS": f"{SECOND}:{port}"}) as second:
            yield first, second, port


def answered(replica: RunningTeacher) -> int:
    return int(counted(replica, "teacher_requests_total", outcome="ok"))


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


@pytest.mark.system
@pytest.mark.slow
def test_a_new_replica_is_found_when_connections_age(artifact: Path, name_server: NameServer) -> None:
    with replicas(artifact, "--max-connection-age", str(AGE)) as (first, second, port):
        with calling(f"dns://127.0.0.1:{name_server.port}/{NAME}:{port}") as outcomes:
            assert until(lambda: answered(first) > 50, 20)
            assert answered(second) == 0
            name_server.lead_to(FIRST, SECOND)
            assert until(lambda: answered(second) > 50, 20)
            before = answered(first)
            assert until(lambda: answered(first) > before, 20)  # which goes on
        assert outcomes.errors == []


@pytest.mark.system
@pytest.mark.slow
def test_without_an_age_nobody_looks_for_new_replicas(artifact: Path, name_server: NameServer) -> None:
    with replicas(artifact) as (first, second, port), calling(f"dns://127.0.0.1:{name_server.port}/{NAME}:{port}"):
        assert until(lambda: answered(first) > 50, 20)
        name_server.lead_to(FIRST, SECOND)
        assert not until(lambda: answered(second) > 0, 4 * AGE)


@pytest.mark.slow
def test_no_request_is_lost_when_connections_age(artifact: Path) -> None:
    with replicas(artifact, "--max-connection-age", str(AGE)) as (first, second, port):
        with calling(f"ipv4:{FIRST}:{port},{SECOND}:{port}") as outcomes:
            time.sleep(10 * AGE)
        assert outcomes.errors == []
        assert outcomes.answered == answered(first) + answered(second)
        assert min(answered(first), answered(second)) > outcomes.answered / 4  # round_robin
