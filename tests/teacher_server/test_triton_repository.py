"""`teacher triton-repo`: what it writes, what it refuses, and that nothing is missing there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from teacher_server.artifact import load_artifact, read_description
from teacher_server.description import TeacherDescription
from teacher_server.triton.repository import TritonSettings, model_config
from teacher_server.vocabulary import Grid
from tests.serving import tiny_artifact
from tests.teacher_server.full_disk import files_end_at
from tests.teacher_server.test_commands import teacher


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    tiny_artifact(tmp_path / "artifact")
    return tmp_path / "artifact"


def config_of(description: TeacherDescription, settings: TritonSettings) -> pb.ModelConfig:
    return text_format.Parse(model_config(description, settings), pb.ModelConfig())


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_configuration_says_who_the_teacher_is(artifact: Path) -> None:
    description = read_description(artifact)
    config = config_of(description, TritonSettings("trips", "cuda", "float16", 64, 8, 1024))
    assert (config.name, config.backend, config.max_batch_size) == ("trips", "python", 64)
    assert [tensor.name for tensor in config.input if not tensor.optional] == ["HISTORY", "HISTORY_LENGTH"]
    assert [tensor.name for tensor in config.output] == ["LOG_PROBS", "LOG_LIKELIHOOD", "TOKEN_COUNT"]
    assert [tensor.name for tensor in config.input if tensor.allow_ragged_batch] == [
        tensor.name for tensor in config.input if -1 in tensor.dims
    ]
    assert [group.kind for group in config.instance_group] == [pb.ModelInstanceGroup.KIND_GPU]
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 8
    told = {name: parameter.string_value for name, parameter in config.parameters.items()}
    assert told["digest"] == description.digest
    assert told["compute_type"] == "float16"
    assert json.loads(told["grid"]) == asdict(description.grid)
    assert json.loads(told["limits"])["max_sequences"] == 64


def test_any_text_survives_the_configuration(tmp_path: Path) -> None:
    rule = 'quote " backslash \\ line\nend é'
    grid = Grid(0.0, 0.5, 0.0, 0.5, 1.0, 1.0, 1, 1, centroid_rule=rule)
    config = config_of(tiny_artifact(tmp_path / "t", grid=grid), TritonSettings())
    assert json.loads(config.parameters["grid"].string_value)["centroid_rule"] == rule


def test_the_command_writes_all_that_the_backend_needs(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "repository"
    assert teacher(monkeypatch, "triton-repo", artifact, "--out", out) == 0
    assert read_description(artifact).digest in capsys.readouterr().out
    version = out / "teacher" / "1"
    assert load_artifact(version / "artifact").description == read_description(artifact)
    code = "import teacher_server.artifact, teacher_server.triton.batch as b; print(b.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(version)}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert found.stdout.strip() == str(version / "teacher_server/triton/batch.py"), found.stderr
    assert [path.name for path in out.parent.iterdir()] == ["repository"]  # nothing half-written beside it


def test_only_a_repository_is_replaced(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, foreign = tmp_path / "out", tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    write = ("triton-repo", artifact, "--out")
    assert teacher(monkeypatch, *write, foreign, "--overwrite") == 2
    assert "is no Triton repository of a teacher" in capsys.readouterr().err
    assert tree(foreign) == {"thesis.tex": b"years of work"}
    assert teacher(monkeypatch, *write, out) == 0
    assert teacher(monkeypatch, *write, out) == 2
    assert "pass --overwrite" in capsys.readouterr().err
    tiny_artifact(tmp_path / "other", seed=1)
    assert teacher(monkeypatch, "triton-repo", tmp_path / "other", "--out", out, "--overwrite") == 0
    assert read_description(out / "teacher/1/artifact") == read_description(tmp_path / "other")


def test_a_full_disk_leaves_what_was_there(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert teacher(monkeypatch, "triton-repo", artifact, "--out", out) == 0
    before = tree(tmp_path)
    with files_end_at(1000):
        assert teacher(monkeypatch, "triton-repo", artifact, "--out", out, "--overwrite") == 2
    assert f"{out}: cannot be written" in capsys.readouterr().err
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--name", "a/b"], "bad model name 'a/b'"),
        (["--name", ".hidden"], "bad model name '.hidden'"),
        (["--device", "tpu"], "unknown device 'tpu': use auto, cpu, cuda"),
        (["--dtype", "auto"], "unknown dtype 'auto'"),
        (["--max-batch-size", "0"], "max_batch_size must be at least 1, got 0"),
        (["--batch-tokens", "-1"], "batch_tokens must be at least 0, got -1"),
    ],
)
def test_a_bad_flag_is_one_line(
    flags: list[str],
    message: str,
    artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert teacher(monkeypatch, "triton-repo", artifact, "--out", tmp_path / "out", *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"teacher: error: {message}")
    assert not (tmp_path / "out").exists()


def test_no_teacher_no_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert teacher(monkeypatch, "triton-repo", tmp_path / "nowhere", "--out", tmp_path / "out") == 2
    assert "nowhere does not exist" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
