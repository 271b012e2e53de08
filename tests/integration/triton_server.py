"""A real Triton server, as `make triton-server` installs it, for the time of a `with`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import tritonclient.grpc as oip
from tritonclient.utils import InferenceServerException

FOLDER = Path(__file__).resolve().parents[2] / ".triton"
START_SECONDS = 200.0  # torch and all, on a busy machine
STOP_SECONDS = 30.0


@dataclass(frozen=True)
class RunningTriton:
    """A server whose models are all ready."""

    process: subprocess.Popen[bytes]
    grpc: str  # HOST:PORT
    http: str
    metrics: str
    log: Path


@contextmanager
def triton(log: Path, *repositories: Path) -> Iterator[RunningTriton]:
    """Serves the models of the repositories; the server must end well when the block does."""
    process, addresses = start(log, *repositories)
    try:
        _wait_until_ready(process, addresses[0], log)
        yield RunningTriton(process, *addresses, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_SECONDS) == 0, log.read_text()[-2000:]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def start(log: Path, *repositories: Path) -> tuple[subprocess.Popen[bytes], list[str]]:
    """The server as a child on free ports of 127.0.0.1; its addresses are those of gRPC, HTTP and metrics."""
    if not (FOLDER / ".installed").exists():
        pytest.skip("there is no Triton server: run make triton-server")
    ports = _free_ports(3)
    flags = [f"--model-repository={folder}" for folder in repositories]
    for kind, port in zip(("grpc", "http", "metrics"), ports, strict=True):
        flags += [f"--{kind}-address=127.0.0.1", f"--{kind}-port={port}"]
    flags += [f"--backend-directory={FOLDER}/backends", "--exit-timeout-secs=10"]
    environment = {
        **os.environ,
        "PATH": f"{FOLDER}/venv/bin:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": f"{FOLDER}/lib",
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("PYTHONPATH", None)  # the repository brings all modules of ours
    with log.open("wb") as out:
        process = subprocess.Popen(
            [FOLDER / "bin" / "tritonserver", *flags], env=environment, stdout=out, stderr=out, cwd=log.parent
        )
    return process, [f"127.0.0.1:{port}" for port in ports]


def _wait_until_ready(process: subprocess.Popen[bytes], target: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with oip.InferenceServerClient(target) as client:
        while not _is_ready(client):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.2)


def _is_ready(client: oip.InferenceServerClient) -> bool:
    try:
        return bool(client.is_server_ready(client_timeout=2))
    except InferenceServerException:
        return False


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()
