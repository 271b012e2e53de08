"""A real Prometheus server, beside a real teacher that is asked."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from protos.teacher.v1 import teacher_pb2_grpc
from tests.serving import RunningTeacher
from tests.teacher_server.scoring import message_of, work_of

WORK = work_of([[1, 2, 3]], [[[4, 5], [6, 7, 8]]])
CONFIG = """
global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs:
  - job_name: teacher
    static_configs: [{{targets: ["{target}"], labels: {labels}}}]
"""


def ask(teacher: RunningTeacher, times: int) -> None:
    """Good requests, and one about another teacher."""
    with grpc.insecure_channel(teacher.grpc) as channel:
        stub = teacher_pb2_grpc.TeacherServiceStub(channel)
        for _ in range(times):
            stub.Score(message_of(WORK), timeout=10)
        with pytest.raises(grpc.RpcError):
            stub.Score(message_of(WORK, digest="cd" * 32), timeout=10)


@contextmanager
def prometheus(target: str, folder: Path, **labels: str) -> Iterator[str]:
    """A Prometheus server of one target with these labels, for the time of a `with`; its base URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = folder / "prometheus.yml"
    config.write_text(CONFIG.format(target=target, labels=json.dumps(labels)))
    flags = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["prometheus", *flags], stdout=log, stderr=log)
        try:
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(30)


def result(server: str, query: str) -> list[Any]:
    """What a query has now; nothing before the server is up."""
    try:
        answered = httpx.get(f"{server}/api/v1/query", params={"query": query})
    except httpx.TransportError:  # it does not listen yet
        return []
    if answered.status_code == httpx.codes.SERVICE_UNAVAILABLE:  # it still reads what it has stored
        return []
    answer = answered.json()
    assert answer["status"] == "success", answer
    return list(answer["data"]["result"])
