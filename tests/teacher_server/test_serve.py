"""`teacher serve` as a process: how it starts, how it ends, and what it says when it cannot."""

from __future__ import annotations

import gc
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
import torch
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.teacher.v1 import teacher_pb2 as pb
from protos.teacher.v1 import teacher_pb2_grpc
from teacher_server.__main__ import app, main
from teacher_server.artifact import load_artifact
from teacher_server.hosting import settle_memory
from tests.serving import RunningTeacher, finished, serve, start, tiny_artifact, wait_until_ready
from tests.teacher_server.scoring import log_probs_of, message_of, oracle, work_of

SMALL = work_of([[1, 2, 3]], [[[4, 5], [6, 7, 8]]])
# Seconds of work for a teacher of two layers: many windows that share nothing.
HISTORIES = np.random.default_rng(0).integers(0, 20, (1200, 100)).tolist()
LONG = work_of(HISTORIES, [[[4, 5]] * 90] * len(HISTORIES), window=8)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "artifact"
    tiny_artifact(folder, n_embd=64)
    return folder


@pytest.fixture
def teacher(artifact: Path) -> Iterator[RunningTeacher]:
    with serve(artifact) as running:
        yield running


def test_sigterm_finishes_what_is_in_flight_and_refuses_the_rest(teacher: RunningTeacher, artifact: Path) -> None:
    assert httpx.get(f"{teacher.http}/readyz").status_code == 200
    with grpc.insecure_channel(teacher.grpc) as channel:
        stub = teacher_pb2_grpc.TeacherServiceStub(channel)
        answer = stub.Score.future(message_of(LONG), timeout=60)
        waits = re.compile(r"^teacher_queue_requests\{.*\} 1", re.MULTILINE)
        while not waits.search(httpx.get(f"{teacher.http}/metrics").text):
            assert not answer.done()  # of its many batches the last is not begun
        teacher.process.send_signal(signal.SIGTERM)
        while (ready := httpx.get(f"{teacher.http}/readyz")).status_code == 200:
            time.sleep(0.01)
        assert (ready.status_code, ready.json()["status"]) == (503, "draining")
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError) as refused:
            stub.Score(message_of(SMALL), timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "draining" in refused.value.details()
        assert not answer.done()
        got = log_probs_of(answer.result())
    for which in (0, -1):
        expected = oracle(load_artifact(artifact).build(), work_of([HISTORIES[which]], [[[4, 5]] * 90], window=8))
        np.testing.assert_allclose(got.reshape(-1, 180)[which], expected, atol=1e-5, rtol=2e-6)
    finished(teacher.process, 0)


@pytest.mark.slow
def test_a_stuck_server_may_end_itself(artifact: Path) -> None:
    """After it has told its callers. Other batches are quick enough not to count."""
    flags = ("--exit-when-stuck", "--batch-timeout", "1", "--batch-tokens", "10000000")
    with serve(artifact, *flags) as teacher, grpc.insecure_channel(teacher.grpc) as channel:
        with pytest.raises(grpc.RpcError) as told:
            teacher_pb2_grpc.TeacherServiceStub(channel).Score(message_of(LONG), timeout=60)
        assert told.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "stuck" in told.value.details()
        assert "a batch has not ended within 1.0 s" in finished(teacher.process, 1)


def test_what_does_not_finish_in_time_is_told_so(artifact: Path) -> None:
    with serve(artifact, "--drain-timeout", "0.1") as teacher, grpc.insecure_channel(teacher.grpc) as channel:
        answer = teacher_pb2_grpc.TeacherServiceStub(channel).Score.future(message_of(LONG), timeout=60)
        time.sleep(0.3)
        teacher.process.send_signal(signal.SIGINT)  # it ends a server as SIGTERM does
        assert answer.exception().code() is grpc.StatusCode.UNAVAILABLE
        assert "shut down before" in answer.exception().details()
        finished(teacher.process, 0)


@pytest.mark.slow
def test_between_ready_and_refusing_there_is_time_for_balancers(artifact: Path) -> None:
    with serve(artifact, "--drain-delay", "1.5") as teacher, grpc.insecure_channel(teacher.grpc) as channel:
        stub = teacher_pb2_grpc.TeacherServiceStub(channel)
        with httpx.Client(base_url=str(teacher.http)) as client:
            assert "connection" not in client.get("/readyz").headers
            teacher.process.send_signal(signal.SIGTERM)
            while (ready := client.get("/readyz")).status_code == 200:
                time.sleep(0.01)
            assert (ready.json()["status"], ready.headers["connection"]) == ("leaving", "close")
            assert client.get("/livez").status_code == 200
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
        for _ in range(3):
            assert len(log_probs_of(stub.Score(message_of(SMALL), timeout=10))) == len(SMALL.candidates)
        finished(teacher.process, 0)


def test_it_ends_with_the_process_that_started_it(artifact: Path) -> None:
    child = wait_until_ready(start(artifact, "--until-stdin-closes", stdin=subprocess.PIPE))
    time.sleep(0.1)
    assert child.process.poll() is None
    assert child.process.stdin is not None
    child.process.stdin.close()
    child.process.stdin = None
    finished(child.process, 0)


def test_several_addresses_from_the_environment_and_no_file_is_left(artifact: Path, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    env = {"TEACHER_GRPC_ADDRESS": f"unix:{path} 127.0.0.1:0", "TEACHER_HTTP_ADDRESS": "none"}
    with serve(artifact, "--max-connection-age", "0.3", env=env) as teacher:
        assert teacher.grpc == f"unix:{path}"
        assert teacher.http is None
        with grpc.insecure_channel(teacher.grpc) as channel:
            states: list[grpc.ChannelConnectivity] = []
            channel.subscribe(states.append)
            teacher_pb2_grpc.TeacherServiceStub(channel).Describe(pb.DescribeRequest(), timeout=10)
            deadline = time.monotonic() + 10
            while grpc.ChannelConnectivity.IDLE not in states[1:]:  # the server sent the client away
                assert time.monotonic() < deadline, states
                time.sleep(0.05)
            teacher_pb2_grpc.TeacherServiceStub(channel).Describe(pb.DescribeRequest(), timeout=10)
    assert not path.exists()


def test_a_port_in_use_is_one_line_from_a_real_process(artifact: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start(artifact, "--grpc-address", f"127.0.0.1:{port}")
        errors = finished(process, 2)
    assert errors == f"teacher: error: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command in this process; it must end with status 2 and one line, which is returned."""
    free = ["--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0"]
    monkeypatch.setattr(sys, "argv", ["teacher", "serve", *free, *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    out, errors = capfd.readouterr()
    assert "ready" not in out
    assert errors.startswith("teacher: error: ")
    assert errors.count("\n") == 1
    return errors


BAD_FLAGS = {
    "gRPC address": (["--grpc-address", "nowhere"], "bad address 'nowhere'"),
    "gRPC port": (["--grpc-address", "127.0.0.1:99999"], "bad address '127.0.0.1:99999'"),
    "gRPC host": (["--grpc-address", "192.0.2.1:0"], "cannot listen on 192.0.2.1:0: Cannot assign"),
    "gRPC address twice": (["--grpc-address", "127.0.0.1:0"], "given twice"),
    "socket folder": (["--grpc-address", "unix:/no/such/folder/socket"], "the folder /no/such/folder does not"),
    "socket path": (["--grpc-address", "unix:/" + "x" * 200], "107 bytes"),
    "socket place": (["--grpc-address", "unix:/etc/hostname"], "is no socket"),
    "HTTP address": (["--http-address", "unix:/tmp/socket"], "bad HTTP address"),
    "HTTP host": (["--http-address", "192.0.2.1:80"], "cannot listen on 192.0.2.1:80"),
    "device": (["--device", "tpu"], "unknown device 'tpu'"),
    "dtype": (["--dtype", "int8"], "unknown dtype 'int8'"),
    "log format": (["--log-format", "xml"], "unknown --log-format 'xml': use text, json"),
    "log level": (["--log-level", "loud"], "unknown --log-level 'loud': use debug, info, warning, error"),
}


@pytest.mark.parametrize("kind", BAD_FLAGS)
def test_flags_that_cannot_work_are_one_line(
    kind: str, artifact: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    flags, message = BAD_FLAGS[kind]
    assert message in refused(monkeypatch, capfd, str(artifact), *flags)


def test_every_flag_is_a_variable_too() -> None:
    """`TEACHER_` and the flag's name, for all that `teacher serve` takes."""
    serve_command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    flags = {parameter.opts[0]: parameter.envvar for parameter in serve_command.params if parameter.name != "help"}
    assert len(flags) > 20
    assert flags == {flag: "TEACHER_" + flag.removeprefix("--").upper().replace("-", "_") for flag in flags}


def test_every_flag_is_in_a_panel_of_the_help() -> None:
    serve_command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    panels = {
        parameter.name: parameter.rich_help_panel
        for parameter in serve_command.params
        if parameter.param_type_name == "option" and parameter.name != "help"
    }
    assert [name for name, panel in panels.items() if not panel] == []
    assert 5 < len(set(panels.values())) < 10


def test_cuda_that_is_absent_is_one_line(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA device" in refused(monkeypatch, capfd, str(artifact), "--device", "cuda")


def test_artifacts_that_are_none_are_one_line(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert f"{tmp_path}/no does not exist" in refused(monkeypatch, capfd, str(tmp_path / "no"))
    broken = tmp_path / "broken"
    shutil.copytree(artifact, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert str(weights) in refused(monkeypatch, capfd, str(broken))


def test_a_teacher_that_cannot_answer_its_warm_up_does_not_start(artifact: Path, tmp_path: Path) -> None:
    # Finite float32 weights that overflow in float16: only the warm-up can see it.
    folder = tmp_path / "overflowing"
    tiny_artifact(folder, scale=1e6)
    process = start(folder, "--dtype", "float16")
    errors = finished(process, 1)
    assert errors.splitlines()[-1].startswith("teacher: error: the teacher could not compute this request")
    assert "not finite in float16" in errors


def test_garbage_collections_of_a_ready_server_are_short() -> None:
    """All that torch and its like have made is left out of them: with it, each holds every caller up."""

    def collection() -> float:
        started = time.perf_counter()
        gc.collect()
        return time.perf_counter() - started

    collection()
    before = collection()
    settle_memory()
    try:
        assert collection() < before / 4
    finally:
        gc.unfreeze()
