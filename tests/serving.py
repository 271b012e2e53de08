"""Real teacher servers for tests: a tiny artifact, and `teacher serve` as a process of its own."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
import torch
from prometheus_client.parser import text_string_to_metric_families

from teacher_server.artifact import write_artifact
from teacher_server.description import TeacherDescription
from teacher_server.model import LMTAD, ModelConfig
from teacher_server.vocabulary import Grid, SpecialTokens

START_SECONDS = 60.0
STOP_SECONDS = 30.0


@dataclass(frozen=True)
class RunningTeacher:
    """A server that is ready."""

    process: subprocess.Popen[str]
    grpc: str  # target of the first gRPC address: HOST:PORT or unix:PATH
    http: str | None  # base URL
    digest: str

    def stop(self) -> str:
        """SIGTERM; the server must end with status 0. Returns what it wrote to stderr."""
        self.process.send_signal(signal.SIGTERM)
        return finished(self.process, 0)


def tiny_artifact(
    folder: Path,
    *,
    rows: int = 4,
    columns: int = 5,
    block_size: int = 12,
    n_layer: int = 2,
    n_head: int = 2,
    n_embd: int = 16,
    seed: int = 0,
    scale: float = 0.4,
    grid: Grid | None = None,
) -> TeacherDescription:
    """Write a random teacher whose every token and position matters; `grid` replaces rows x columns of 0.01 deg."""
    grid = grid or Grid(
        min_lat=37.0,
        max_lat=37.0 + 0.01 * rows - 0.005,
        min_lng=-122.0,
        max_lng=-122.0 + 0.01 * columns - 0.005,
        cell_lat=0.01,
        cell_lng=0.01,
        rows=rows,
        columns=columns,
    )
    config = ModelConfig(block_size, grid.cells + 3, n_layer, n_head, n_embd)
    model = LMTAD(config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.0, scale, generator=generator)
    weights = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    special = SpecialTokens.after(grid.cells)
    return write_artifact(folder, weights, config, special, grid, {"source": "random weights for tests"})


def start(
    artifact: Path,
    *flags: str,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[str] | None = subprocess.DEVNULL,
    within: Sequence[str] = (),
) -> subprocess.Popen[str]:
    """`teacher serve` as a child, on free ports of 127.0.0.1 unless `flags` or `env` say otherwise.

    `within`: words before the command that run it elsewhere, as the same process.
    """
    command = [*within, sys.executable, "-m", "teacher_server", "serve", str(artifact), *flags]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TEACHER_GRPC_ADDRESS": "127.0.0.1:0",
        "TEACHER_HTTP_ADDRESS": "127.0.0.1:0",
        **(env or {}),
    }
    return subprocess.Popen(
        command, env=environment, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until_ready(process: subprocess.Popen[str]) -> RunningTeacher:
    """Read the two lines that a server prints on its way up; it fails the test if they do not come."""
    try:
        listening = _line(process)
        match = re.fullmatch(r"teacher: listening((?: grpc=\S+)+)(?: http=(\S+))? digest=([0-9a-f,]+)\n", listening)
        assert match, f"unexpected first line {listening!r}"
        assert _line(process) == "teacher: ready\n"
    except BaseException:
        _end(process)
        raise
    target = match[1].split()[0].removeprefix("grpc=")
    return RunningTeacher(process, target, f"http://{match[2]}" if match[2] else None, match[3])


def finished(process: subprocess.Popen[str], status: int) -> str:
    """Wait for the end with this exit status; returns stderr, which must hold no traceback."""
    try:
        _, errors = process.communicate(timeout=STOP_SECONDS)
    except BaseException:
        _end(process)
        raise
    assert process.returncode == status, f"exit status {process.returncode}, not {status}: {errors}"
    assert "Traceback" not in errors, errors
    return errors


@contextmanager
def serve(artifact: Path, *flags: str, env: Mapping[str, str] | None = None) -> Iterator[RunningTeacher]:
    """A ready server for the time of a `with`; stopped by SIGTERM, which must go well."""
    teacher = wait_until_ready(start(artifact, *flags, env=env))
    try:
        yield teacher
        if teacher.process.poll() is None:
            teacher.stop()
    finally:
        _end(teacher.process)


def counted(served: RunningTeacher, name: str, **labels: str) -> float:
    """A metric of a server, added up over all labels, or over those with these values."""
    families = text_string_to_metric_families(httpx.get(f"{served.http}/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    assert samples, f"{name} is not among the metrics"
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def calls(served: RunningTeacher) -> int:
    """Score requests that a server has answered."""
    return int(counted(served, "nv_inference_request_success"))


def _line(process: subprocess.Popen[str]) -> str:
    """The next line of stdout, or a failure with what the server said instead."""
    assert process.stdout is not None
    deadline = time.monotonic() + START_SECONDS
    line = b""
    while not line.endswith(b"\n"):
        if select.select([process.stdout], [], [], 0.5)[0]:
            byte = os.read(process.stdout.fileno(), 1)  # not readline, whose buffer select cannot see
            assert byte, f"the server ended: {process.communicate(timeout=STOP_SECONDS)[1]}"
            line += byte
        assert time.monotonic() < deadline, "the server said nothing in time"
    return line.decode()


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
