"""What goes wrong around a run: full disks, early deaths, half of the endpoints, mixed-up files, lying servers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent import futures
from dataclasses import asdict
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from protos.teacher.v1 import teacher_pb2 as pb
from protos.teacher.v1 import teacher_pb2_grpc as pb_grpc
from tests.integration.line import Line
from tests.integration.runs import assert_close, assert_equal, command, epochs, train
from tests.serving import RunningTeacher, serve
from trainer.grid import Grid

LIMITED = """
import os, resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execv(sys.argv[2], sys.argv[2:])
"""


def evaluate(line: Line, run: Path, *flags: str | Path, status: int = 0) -> str:
    words = [sys.executable, "-m", "trainer", "evaluate", run, "--cache", line.cache, *flags]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("room", [3_000, 1_000_000, 9_000_000])
def test_a_full_disk_is_one_clear_line(line: Line, tmp_path: Path, room: int) -> None:
    """Files that may not grow beyond `room` bytes stand for a disk that is full."""
    out = tmp_path / "run"
    words = command(line, out, "--teacher", "none", *epochs(1))
    limited = [sys.executable, "-c", LIMITED, str(room), *words]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("trainer: error:") == 1
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(out.rglob("*.partial")) == []
    if (out / "origin.json").exists():  # with room again the run goes on
        train(line, out, "--teacher", "none", "--resume", *epochs(1))


def test_a_run_knows_how_it_was_begun(line: Line, plain_run: Path, tmp_path: Path) -> None:
    """Killed before its first checkpoint, a run goes on with nothing but its folder."""
    out = tmp_path / "run"
    shutil.copytree(plain_run, out)
    shutil.rmtree(out / "checkpoints")
    (out / "checkpoints").mkdir()
    words = [sys.executable, "-m", "trainer", "train", "--out", out, "--resume", "--cache", line.cache]
    done = subprocess.run([*map(str, words), "--cpu-threads", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_equal(plain_run, out)


def test_empty_beginnings_are_no_run(line: Line, tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out / "checkpoints").mkdir(parents=True)
    (out / "config.yaml").write_text("")
    train(line, out, "--teacher", "none", *epochs(1))
    assert (out / "summary.json").exists()


@pytest.mark.slow
def test_an_endpoint_that_is_down_at_the_start_is_passed_over(
    line: Line, served: RunningTeacher, taught_run: Path, tmp_path: Path
) -> None:
    train(line, tmp_path / "run", "--teacher", f"grpc://127.0.0.1:9,{served.grpc}", *epochs(2))
    assert_close(taught_run, tmp_path / "run")


@pytest.mark.slow
def test_small_messages_do(line: Line, taught_run: Path, tmp_path: Path) -> None:
    with serve(line.teacher, "--max-message-bytes", "3000") as small:
        train(line, tmp_path / "run", "--teacher", f"grpc://{small.grpc}", *epochs(1))
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps_skipped"] == 0


@pytest.mark.slow
def test_a_teacher_that_nobody_asks_is_mentioned(line: Line, tmp_path: Path) -> None:
    flags = ("--teacher", "grpc://127.0.0.1:9", "--set", "distill.enable=false", *epochs(1))
    assert "distill.enable is false, so nobody asks the teacher grpc://127.0.0.1:9" in train(
        line, tmp_path / "run", *flags
    )


@pytest.mark.slow
def test_trips_of_another_student_are_refused(line: Line, plain_run: Path, taught_run: Path, tmp_path: Path) -> None:
    generated = tmp_path / "g.csv"
    words = ["generate", taught_run, "--cache", line.cache, "--out", generated, "--count", "4"]
    subprocess.run([sys.executable, "-m", "trainer", *map(str, words)], check=True, capture_output=True, timeout=100)
    about = json.loads(generated.with_suffix(".json").read_text())
    for name in ("total_time_p95", "total_time_median", "forward_time_std", "forward_count_mean"):
        assert about[name] >= 0
    errors = evaluate(line, plain_run, "--generated", generated, "--out", tmp_path / "e.json", status=2)
    assert about["model_digest"][:16] in errors
    evaluate(line, taught_run, "--generated", generated, "--out", tmp_path / "e.json")
    figures = json.loads((tmp_path / "e.json").read_text())
    assert figures["model_digest"] == about["model_digest"]
    assert len(figures["generated_digest"]) == 64
    assert figures["teacher_digest"] == about["teacher_digest"]


@pytest.mark.slow
def test_fusing_asks_about_every_step(line: Line, served: RunningTeacher, tmp_path: Path) -> None:
    flags = ("--set", "distill.positions=last", *epochs(1))
    train(line, tmp_path / "run", "--teacher", f"grpc://{served.grpc}", *flags)
    teacher = ("--teacher", f"grpc://{served.grpc}")
    evaluate(line, tmp_path / "run", "--fuse-teacher", "0.5", *teacher)
    fused = json.loads((tmp_path / "run" / "evaluation.fused.json").read_text())
    assert fused["loss_next_step"] > 0
    assert fused["fused_with"] == served.digest
    for bad in ("nan", "inf", "-1"):
        assert "--fuse-teacher must be" in evaluate(line, tmp_path / "run", "--fuse-teacher", bad, *teacher, status=2)


def test_a_vocabulary_that_does_not_fit_the_grid(line: Line, tmp_path: Path) -> None:
    """A server that lies: its grid has fewer cells than its vocabulary says."""
    grid = Grid.over(line.city.road_map.points, 0.001)
    reply = pb.DescribeResponse(digest="d" * 64, vocab_size=grid.cells + 13, cells=grid.cells + 10, block_size=9)
    reply.grid.CopyFrom(pb.Grid(**asdict(grid)))
    reply.token_type = pb.TOKEN_TYPE_UINT16

    class Liar(pb_grpc.TeacherServiceServicer):
        def Describe(self, request: pb.DescribeRequest, context: grpc.ServicerContext) -> pb.DescribeResponse:  # noqa: N802
            return reply

    server = grpc.server(futures.ThreadPoolExecutor(2))
    pb_grpc.add_TeacherServiceServicer_to_server(Liar(), server)
    servicer = health.HealthServicer()
    servicer.set("teacher.v1.TeacherService", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        errors = train(line, tmp_path / "run", "--teacher", f"grpc://127.0.0.1:{port}", status=2)
    finally:
        server.stop(None).wait()
    assert f"{grid.rows} x {grid.columns} = {grid.cells} cells" in errors
    assert f"{grid.cells + 13} tokens" in errors
    assert not (tmp_path / "run").exists()
