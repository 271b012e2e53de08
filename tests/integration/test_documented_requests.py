"""The requests that docs/teacher.md shows, run as they stand against a real server (on ports of its own)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teacher_server.artifact import load_artifact
from teacher_server.model import LMTAD
from tests.serving import RunningTeacher, serve
from tests.teacher_server.scoring import oracle, trip_oracle, work_of

MANUAL = (Path(__file__).resolve().parents[2] / "docs" / "teacher.md").read_text()

TRIPS = [[3, 4, 5], [7]]  # of the examples


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
    answer = json.loads(printed("sh", "-c", shown("sh", "CANDIDATES", teacher)))
    (output,) = answer["outputs"]
    expected = oracle(load_artifact(artifact).build(), work_of([[3, 4, 5]], [[[6, 10]]]))
    assert (output["shape"], output["data"][2]) == ([1, 1, 3], None)
    np.testing.assert_allclose(output["data"][:2], expected, atol=1e-5)


@pytest.mark.system
def test_the_curl_example_of_whole_trips_is_answered(teacher: RunningTeacher, model: LMTAD) -> None:
    answer = json.loads(printed("sh", "-c", shown("sh", "LOG_LIKELIHOOD", teacher)))
    found = {output["name"]: output["data"] for output in answer["outputs"]}
    sums, counts = trip_oracle(model, TRIPS)
    np.testing.assert_allclose(found["LOG_LIKELIHOOD"], sums, rtol=1e-6)
    assert found["TOKEN_COUNT"] == counts


def command_line(mark: str, teacher: RunningTeacher) -> dict[str, Any]:
    example = shown("sh", mark, teacher).replace("teacher score", f"{sys.executable} -m teacher_server score")
    answer: dict[str, Any] = json.loads(printed("sh", "-c", example))
    return answer


def test_the_command_line_example_is_answered(teacher: RunningTeacher) -> None:
    assert len(command_line("histories", teacher)["log_probs"][0][0]) == 2


def test_the_command_line_example_of_whole_trips_is_answered(teacher: RunningTeacher, model: LMTAD) -> None:
    answer = command_line('"trips"', teacher)
    sums, counts = trip_oracle(model, TRIPS)
    np.testing.assert_allclose(answer["log_likelihoods"], sums, rtol=1e-6)
    np.testing.assert_allclose(answer["anomaly_scores"], -np.array(sums) / counts, rtol=1e-6)
    assert (answer["token_counts"], answer["digest"]) == (counts, teacher.digest)
