"""The log: its two formats, which requests it speaks of, and that a flood of requests does not become one of lines."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from protos.teacher.v1 import teacher_pb2_grpc
from teacher_server.calls import Calls
from teacher_server.logs import LINES_A_SECOND, JsonFormatter, RequestLog, TextFormatter
from teacher_server.reports import CANCELLED, OK, RequestReport
from tests.serving import serve, tiny_artifact
from tests.teacher_server.scoring import message_of, work_of

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG, "teacher"):
        yield caplog


@pytest.mark.parametrize(
    ("outcome", "total_s", "level"),
    [
        (OK, 0.1, logging.DEBUG),
        (OK, 10.0, logging.WARNING),
        (CANCELLED, 0.1, logging.DEBUG),
        ("InvalidRequest", 0.1, logging.INFO),
        ("WrongTeacher", 0.1, logging.INFO),
        ("Overloaded", 0.1, logging.WARNING),
        ("EngineFailure", 0.1, logging.ERROR),
        ("EngineFailure", 11.0, logging.ERROR),
    ],
)
def test_levels(everything: pytest.LogCaptureFixture, outcome: str, total_s: float, level: int) -> None:
    RequestLog(slow_s=10.0).on_request(RequestReport(outcome, total_s, 3, detail="why"))
    [record] = everything.records
    assert record.levelno == level
    assert record.message.startswith(f"{outcome}: 3 positions in {total_s * 1000} ms")


def test_a_flood_is_a_few_lines_and_a_number(everything: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    requests = RequestLog(slow_s=10.0, clock=clock)
    for _ in range(1000):
        requests.on_request(RequestReport("Overloaded", 0.001, 1))
    requests.on_request(RequestReport("TooLarge", 0.001, 1))  # another outcome has lines of its own
    assert len(everything.records) == LINES_A_SECOND + 1
    clock.now += 1
    requests.on_request(RequestReport("Overloaded", 0.001, 1))
    assert f"({1000 - LINES_A_SECOND} more ended so since the last line)" in everything.messages[-1]
    requests.on_request(RequestReport("Overloaded", 0.001, 1))
    assert "more ended so" not in everything.messages[-1]


def record(message: str, *arguments: object, **more: object) -> logging.LogRecord:
    made = logging.LogRecord("teacher", logging.WARNING, __file__, 1, message, arguments, None)
    vars(made).update(more)
    return made


def test_text_has_time_level_and_id() -> None:
    form = TextFormatter()
    assert re.fullmatch(f"{TIME} WARNING teacher: two words", form.format(record("two %s", "words")))
    with Calls().entered("Score", [("x-request-id", "abc-1")]):
        assert re.fullmatch(f"{TIME} WARNING teacher: hello \\[abc-1\\]", form.format(record("hello")))


def test_json_is_one_object_a_line() -> None:
    form = JsonFormatter()
    with Calls().entered("Score", [("x-request-id", "abc-1")]):
        line = form.format(record('a "quoted"\nmessage', fields={"outcome": "TooLarge", "total_ms": 1.5}))
    assert "\n" not in line
    read = json.loads(line)
    assert re.fullmatch(TIME, read.pop("time"))
    assert read == {
        "level": "warning",
        "logger": "teacher",
        "message": 'a "quoted"\nmessage',
        "request_id": "abc-1",
        "outcome": "TooLarge",
        "total_ms": 1.5,
    }


def test_json_holds_a_traceback_in_one_line() -> None:
    try:
        raise ValueError("inside")
    except ValueError as error:
        made = record("it failed", exc_info=(type(error), error, error.__traceback__))
    line = JsonFormatter().format(made)
    assert "\n" not in line
    assert "ValueError: inside" in json.loads(line)["exception"]
    assert TextFormatter().format(made).endswith("ValueError: inside")


def test_a_server_logs_json_with_the_callers_id_and_no_tokens(tmp_path: Path) -> None:
    tiny_artifact(tmp_path / "artifact")
    secret = [13, 17, 19, 13, 17]
    with serve(tmp_path / "artifact", "--log-format", "json", env={"TEACHER_LOG_LEVEL": "debug"}) as teacher:
        with grpc.insecure_channel(teacher.grpc) as channel:
            score = teacher_pb2_grpc.TeacherServiceStub(channel).Score
            score(message_of(work_of([secret], [[[4, 5]]])), timeout=10, metadata=[("x-request-id", "good-1")])
            wrong = message_of(work_of([secret], [[[4, 5]]]), digest="cd" * 32)
            with pytest.raises(grpc.RpcError):
                score(wrong, timeout=10, metadata=[("x-request-id", "wrong-1")])
        answer = httpx.get(f"{teacher.http}/livez", headers={"x-request-id": "page-1"})
        assert answer.headers["x-request-id"] == "page-1"
        log = teacher.stop()
    lines = [json.loads(line) for line in log.splitlines()]
    ended = {line["request_id"]: line for line in lines if "outcome" in line}
    assert (ended["good-1"]["level"], ended["good-1"]["outcome"]) == ("debug", "ok")
    assert (ended["wrong-1"]["level"], ended["wrong-1"]["outcome"]) == ("info", "WrongTeacher")
    assert ended["good-1"]["total_ms"] >= ended["good-1"]["compute_ms"] > 0
    assert not re.search(r"13\D{1,3}17\D{1,3}19", log)


@pytest.mark.slow
def test_by_default_good_requests_are_no_lines(tmp_path: Path) -> None:
    tiny_artifact(tmp_path / "artifact")
    with serve(tmp_path / "artifact", "--slow-request", "0") as teacher:
        with grpc.insecure_channel(teacher.grpc) as channel:
            teacher_pb2_grpc.TeacherServiceStub(channel).Score(message_of(work_of([[1]], [[[4, 5]]])), timeout=10)
        slow = teacher.stop()
    assert re.search(f"{TIME} WARNING teacher: ok: 1 positions in .* ms .*\\[[0-9a-f]{{16}}\\]\n", slow)
    with serve(tmp_path / "artifact") as teacher:
        with grpc.insecure_channel(teacher.grpc) as channel:
            teacher_pb2_grpc.TeacherServiceStub(channel).Score(message_of(work_of([[1]], [[[4, 5]]])), timeout=10)
        assert "positions" not in teacher.stop()
