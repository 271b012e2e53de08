"""`triton://` to our own server: the same teacher, the same run, and errors that say what is wrong."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.integration.line import Line
from tests.integration.runs import assert_close, epochs, train
from tests.integration.same_answers import (
    check_same_teacher,
    check_unknown_model,
    check_wrong_teacher,
    query_of,
    reach,
)
from tests.serving import RunningTeacher, serve
from trainer.errors import BadInput, TeacherUnavailable
from trainer.teacher.address import connect
from trainer.teacher.protocol import Query


def test_the_same_teacher(served: RunningTeacher) -> None:
    check_same_teacher(served.grpc, served.grpc, "teacher")


@pytest.mark.slow
def test_a_run_is_the_same(line: Line, served: RunningTeacher, taught_run: Path, tmp_path: Path) -> None:
    train(line, tmp_path / "run", "--teacher", f"triton://{served.grpc}/teacher", *epochs(2))
    assert_close(taught_run, tmp_path / "run")


def test_small_limits_are_kept_to(line: Line, served: RunningTeacher) -> None:
    flags = ("--max-sequences=7", "--max-positions=150", "--max-message-bytes=30000", "--max-row-tokens=5000")
    with serve(line.teacher, *flags) as small, reach(f"triton://{small.grpc}/teacher") as teacher:
        query = query_of(teacher.description, 0, 5)
        with reach(f"triton://{served.grpc}/teacher") as large:
            np.testing.assert_allclose(teacher.score(query).log_probs, large.score(query).log_probs, atol=1e-5)


def test_no_candidates_no_question(served: RunningTeacher) -> None:
    one = np.ones(1, np.int64)
    query = Query(np.zeros(1, np.int32), one, one, 0, np.zeros(0, np.int32), one * 0)
    with reach(f"triton://{served.grpc}/teacher") as teacher:
        assert teacher.score(query).log_probs.shape == (0,)


def test_another_teacher_is_meant(served: RunningTeacher) -> None:
    check_wrong_teacher(served.grpc, "teacher")


def test_another_model_is_meant(served: RunningTeacher) -> None:
    check_unknown_model(served.grpc)


def test_nobody_there() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(TeacherUnavailable, match=f"no teacher answers at {target}"):
        reach(f"triton://{target}/teacher", connect_s=1)


def test_a_server_that_dies(line: Line) -> None:
    with serve(line.teacher) as running, reach(f"triton://{running.grpc}/teacher", on_loss="fail") as teacher:
        query = query_of(teacher.description, 0, 0)
        teacher.score(query)
        running.process.kill()
        running.process.wait()
        with pytest.raises(TeacherUnavailable, match=f"no teacher answers at {running.grpc}"):
            teacher.score(query)


def test_a_frozen_server_costs_no_more_than_the_deadline(served: RunningTeacher) -> None:
    with reach(f"triton://{served.grpc}/teacher", deadline_s=0.0001, on_loss="fail") as teacher:
        query = query_of(teacher.description, 0, 0)
        with pytest.raises(TeacherUnavailable, match="DEADLINE_EXCEEDED"):
            teacher.score(query)


def test_the_client_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "trainer.teacher.triton")
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    with pytest.raises(BadInput, match=r"tritonclient.grpc: pip install 'hoser-distill\[triton\]'"):
        connect("triton://127.0.0.1:1/teacher")
