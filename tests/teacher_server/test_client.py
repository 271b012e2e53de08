"""`teacher score` and describing a live address, against a real server."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from protos.teacher.v1 import teacher_pb2 as pb
from teacher_server.__main__ import main
from teacher_server.artifact import load_artifact
from teacher_server.client import describe_address, judge_address, score_address
from teacher_server.errors import BadSettings, InvalidRequest, TeacherError, WrongTeacher
from tests.serving import RunningTeacher, serve
from tests.teacher_server.scoring import BLOCK_SIZE, CELLS, oracle, work_of

REQUEST: dict[str, Any] = {"histories": [[1, 2, 3], [4]], "candidates": [[[5, 6], [7]], [[8, 9, 10]]], "window": 2}


@pytest.fixture(scope="module")
def teacher(artifact: Path) -> Iterator[RunningTeacher]:
    with serve(artifact, "--grpc-address", f"unix:{artifact.parent}/socket", "--http-address", "none") as running:
        yield running


@pytest.mark.parametrize("prefix", ["", "grpc+"])
def test_a_live_address_describes_itself(teacher: RunningTeacher, artifact: Path, prefix: str) -> None:
    described = describe_address(prefix + teacher.grpc)
    description = load_artifact(artifact).description
    assert described["digest"] == description.digest
    assert (described["cells"], described["block_size"], described["pad"]) == (CELLS, BLOCK_SIZE, CELLS)
    assert described["grid"] == vars(description.grid)
    assert described["limits"]["max_message_bytes"] == 33_554_432
    json.dumps(described)


@pytest.mark.parametrize("from_stdin", [False, True])
def test_the_command_prints_log_probs_in_the_requests_shape(
    teacher: RunningTeacher,
    artifact: Path,
    from_stdin: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "request.json"
    file.write_text(json.dumps(REQUEST))
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(REQUEST)))
    monkeypatch.setattr(sys, "argv", ["teacher", "score", teacher.grpc, *([] if from_stdin else [str(file)])])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    answer = json.loads(capsys.readouterr().out)
    assert [[len(cells) for cells in history] for history in answer["log_probs"]] == [[2, 1], [3]]
    work = work_of(REQUEST["histories"], REQUEST["candidates"], REQUEST["window"])
    flat = [value for history in answer["log_probs"] for cells in history for value in cells]
    np.testing.assert_allclose(flat, oracle(load_artifact(artifact).build(), work), atol=1e-5)
    assert answer["digest"] == teacher.digest


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ([], InvalidRequest, "must be a JSON object"),
        ({**REQUEST, "windows": 1}, InvalidRequest, "unknown field 'windows'"),
        ({**REQUEST, "histories": [1, 2]}, InvalidRequest, "histories must be a list of lists"),
        ({**REQUEST, "histories": [["1"]]}, InvalidRequest, "histories must be a list of lists"),
        ({**REQUEST, "candidates": [[1]]}, InvalidRequest, "candidates must be a list"),
        ({**REQUEST, "window": -1}, InvalidRequest, "window must be a whole number"),
        ({**REQUEST, "window": True}, InvalidRequest, "window must be a whole number"),
        ({**REQUEST, "digest": 5}, InvalidRequest, "digest must be a string"),
        ({**REQUEST, "histories": [[70_000], [1]]}, InvalidRequest, "histories: 70000 does not fit"),
        ({**REQUEST, "histories": [[1, 20], [1]]}, InvalidRequest, "is 20, which is no cell"),
        ({**REQUEST, "digest": "cd" * 32}, WrongTeacher, "the request is for teacher cdcd"),
    ],
)
def test_wrong_requests_are_errors_of_their_class(
    teacher: RunningTeacher, request_: object, error: type[TeacherError], message: str
) -> None:
    with pytest.raises(error, match=message):
        score_address(teacher.grpc, request_)


@pytest.mark.parametrize("address", ["triton://host:1", "host", "grpc://", "", "http://host:1"])
def test_addresses_that_are_none_are_refused(address: str) -> None:
    with pytest.raises(BadSettings, match="bad address"):
        describe_address(address)


def test_an_address_where_nobody_listens_is_named() -> None:
    with pytest.raises(BadSettings, match=r"no teacher answers at grpc://127.0.0.1:1"):
        describe_address("grpc://127.0.0.1:1")


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({"trips": [[1, 2]], "window": 1}, InvalidRequest, "unknown field 'window': use trips, digest"),
        ({"trips": [1, 2]}, InvalidRequest, "trips must be a list of lists"),
        ({"trips": [[1], []]}, InvalidRequest, r"lengths\[1\] is 0"),
        ({"trips": [[1]], "digest": "cd" * 32}, WrongTeacher, "the request is for teacher cdcd"),
    ],
)
def test_a_bad_question_about_whole_trips_is_named(
    teacher: RunningTeacher, request_: object, error: type[TeacherError], message: str
) -> None:
    with pytest.raises(error, match=message):
        judge_address(teacher.grpc, request_)


def test_a_server_of_an_older_version_is_told_as_such() -> None:
    """One that knows no Likelihood answers UNIMPLEMENTED."""
    described = pb.DescribeResponse(token_type=pb.TOKEN_TYPE_UINT16).SerializeToString()
    older = grpc.method_handlers_generic_handler(
        "teacher.v1.TeacherService",
        {"Describe": grpc.unary_unary_rpc_method_handler(lambda data, _: described)},
    )
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((older,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(BadSettings, match=f"127.0.0.1:{port} is too old to judge whole trips: update it"):
            judge_address(f"127.0.0.1:{port}", {"trips": []})
    finally:
        server.stop(None)
