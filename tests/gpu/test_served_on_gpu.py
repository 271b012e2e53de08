"""A teacher served from CUDA, asked over a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest

from protos.teacher.v1 import teacher_pb2_grpc
from teacher_server.export import export_foreign
from teacher_server.foreign.grid_source import grid_from_file
from tests.integration.test_served_golden import golden_work
from tests.serving import RunningTeacher, finished, serve, start
from tests.teacher_server.scoring import log_probs_of, message_of

WAYS = {
    "float32": (("--dtype", "float32"), 1e-5),
    "float16": ((), 5e-3),  # what `auto` is on CUDA
    "bfloat16": (("--dtype", "bfloat16"), 5e-2),
    "compiled": (("--compile",), 5e-3),
}


@pytest.fixture(scope="module")
def artifact(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden") / "artifact"
    export_foreign(golden / "weights_only.pt", grid_from_file(golden / "grid.json"), folder)
    return folder


@pytest.fixture(scope="module", params=list(WAYS))
def teacher(request: pytest.FixtureRequest, artifact: Path) -> Iterator[tuple[RunningTeacher, float]]:
    flags, bound = WAYS[request.param]
    with serve(artifact, "--device", "cuda", "--batch-tokens", "256", *flags) as running:
        yield running, bound


@pytest.mark.parametrize("window", [1, 7, 0])
def test_probabilities_are_the_originals(teacher: tuple[RunningTeacher, float], golden: Path, window: int) -> None:
    work, expected = golden_work(golden, window)
    running, bound = teacher
    with grpc.insecure_channel(running.grpc) as channel:
        response = teacher_pb2_grpc.TeacherServiceStub(channel).Score(message_of(work), timeout=60)
    np.testing.assert_allclose(np.exp(log_probs_of(response)), expected, atol=bound, rtol=0)


def test_the_gpu_is_in_the_metrics(teacher: tuple[RunningTeacher, float]) -> None:
    text = httpx.get(f"{teacher[0].http}/metrics").text
    figures = {line.split("{")[0]: line for line in text.splitlines() if "gpu_uuid" in line or "allocated" in line}
    assert float(figures["teacher_device_memory_bytes"].split()[-1]) > 0
    assert float(figures["nv_gpu_memory_total_bytes"].split()[-1]) > 1e9
    assert "cuda" in httpx.get(f"{teacher[0].http}/status.json").json()["device"]["name"]


def test_two_teachers_share_the_device(artifact: Path, golden: Path, tmp_path: Path) -> None:
    (tmp_path / "first").symlink_to(artifact)
    export_foreign(golden / "original_checkpoint.pt", grid_from_file(golden / "grid.json"), tmp_path / "second")
    work, expected = golden_work(golden, 0)
    with serve(tmp_path / "first", str(tmp_path / "second"), "--device", "cuda", "--dtype", "float32") as running:
        digests = running.digest.split(",")
        with grpc.insecure_channel(running.grpc) as channel:
            stub = teacher_pb2_grpc.TeacherServiceStub(channel)
            for digest in digests:
                response = stub.Score(message_of(work, digest=digest), timeout=60)
                np.testing.assert_allclose(np.exp(log_probs_of(response)), expected, atol=1e-5, rtol=0)


def test_it_stops_in_the_middle_of_its_start(artifact: Path) -> None:
    process = start(artifact, "--device", "cuda")
    process.terminate()
    finished(process, -15 if process.wait(60) == -15 else 0)
