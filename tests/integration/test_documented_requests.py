"""The requests that docs/teacher.md shows, run as they stand against a real server (on ports of its own)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from teacher_server.artifact import load_artifact
from tests.serving import RunningTeacher, serve
from tests.teacher_server.scoring import oracle, work_of

MANUAL = (Path(__file__).resolve().parents[2] / "docs" / "teacher.md").read_text()


@pytest.fixture(scope="module")
def teacher(artifact: Path) -> Iterator[RunningTeacher]:
    with serve(artifact) as running:
        yield running


def shown(language: str, mark: str, teacher: RunningTeacher) -> str:
    """The one example in that language with that mark in it, sent to this server."""
    assert teacher.http
    (example,) = [code for code in re.findall(rf"```{language}\n(.*?)```", MANUAL, flags=re.S) if mark in code]
    return example.replace("127.0.0.1:8001", teacher.grpc).replace("http://127.0.0.1:8000", teacher.http)


def printed(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_example_is_answered(teacher: RunningTeacher, artifact: Path) -> None:
    answer = json.loads(
        printed(sys.executable, "-c", shown("python", "tritonclient.grpc", teacher)).replace("-inf", "-Infinity")
    )
    work = work_of([[3, 4, 5], [7, 8]], [[[5, 9], [6, 10]], [[9, 13]]])
    flat = [number for row in answer for slot in row for number in slot if number != -np.inf]
    np.testing.assert_allclose(flat, oracle(load_artifact(artifact).build(), work), atol=1e-5)
    assert answer[1][1] == [-np.inf, -np.inf]


@pytest.mark.system
def test_the_curl_example_is_answered(teacher: RunningTeacher, artifact: Path) -> None:
    answer = json.loads(printed("sh", "-c", shown("sh", "curl", teacher)))
    (output,) = answer["outputs"]
    expected = oracle(load_artifact(artifact).build(), work_of([[3, 4, 5]], [[[6, 10]]]))
    assert (output["shape"], output["data"][2]) == ([1, 1, 3], None)
    np.testing.assert_allclose(output["data"][:2], expected, atol=1e-5)


def test_the_command_line_example_is_answered(teacher: RunningTeacher) -> None:
    example = shown("sh", "teacher score", teacher).replace(
        "teacher score", f"{sys.executable} -m teacher_server score"
    )
    assert len(json.loads(printed("sh", "-c", example))["log_probs"][0][0]) == 2
