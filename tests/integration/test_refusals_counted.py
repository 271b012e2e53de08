"""Requests that are refused before they are scored, through each door: /metrics counts every one, by its outcome."""

from __future__ import annotations

import re
from collections.abc import Iterator

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2_grpc

from protos.teacher.v1 import teacher_pb2_grpc
from tests.serving import RunningTeacher, serve, tiny_artifact
from tests.teacher_server.dense_clients import OF_TRIPS, infer_json, infer_message
from tests.teacher_server.scoring import dense_arrays_of, message_of, trips_message_of, trips_of, work_of

TOKEN = "a-token-of-some-length"
BEARER = {"authorization": f"Bearer {TOKEN}"}
GOOD = work_of([[1, 2, 3]], [[[6, 7]]])
ARRAYS = dense_arrays_of(GOOD)
BAD_ARRAYS = ARRAYS | {"HISTORY_LENGTH": ARRAYS["HISTORY_LENGTH"] + 7}
MESSAGE_BYTES = 20_000


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTeacher]:
    folder = tmp_path_factory.mktemp("teacher")
    tiny_artifact(folder / "artifact")
    tokens = folder / "tokens"
    tokens.write_text(f"{TOKEN}\n")
    tokens.chmod(0o600)
    flags = ["--token-file", str(tokens), "--open-metrics", "--max-message-bytes", str(MESSAGE_BYTES)]
    with serve(folder / "artifact", *flags) as running:
        yield running


def counted(teacher: RunningTeacher) -> dict[str, int]:
    text = httpx.get(f"{teacher.http}/metrics").text
    return {
        name: int(float(n))
        for name, n in re.findall(r'teacher_requests_total\{model="teacher",outcome="(\w+)"\} (\S+)', text)
    }


def by_native(teacher: RunningTeacher, kind: str) -> None:
    message = message_of(GOOD, lengths=b"123" if kind == "InvalidRequest" else message_of(GOOD).lengths)
    metadata = () if kind == "Unauthenticated" else tuple(BEARER.items())
    with grpc.insecure_channel(teacher.grpc) as channel, pytest.raises(grpc.RpcError):
        teacher_pb2_grpc.TeacherServiceStub(channel).Score(message, timeout=10, metadata=metadata)


def by_native_trips(teacher: RunningTeacher, kind: str) -> None:
    message = trips_message_of(trips_of([[1, 2]]), lengths=b"123" if kind == "InvalidRequest" else b"")
    metadata = () if kind == "Unauthenticated" else tuple(BEARER.items())
    with grpc.insecure_channel(teacher.grpc) as channel, pytest.raises(grpc.RpcError):
        teacher_pb2_grpc.TeacherServiceStub(channel).Likelihood(message, timeout=10, metadata=metadata)


def by_inference_trips(teacher: RunningTeacher, kind: str) -> None:
    """Candidates have no place among whole trips."""
    message = infer_message(ARRAYS, "teacher", outputs=OF_TRIPS)
    metadata = tuple(BEARER.items())
    with grpc.insecure_channel(teacher.grpc) as channel, pytest.raises(grpc.RpcError):
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=10, metadata=metadata)


def by_inference(teacher: RunningTeacher, kind: str) -> None:
    arrays = BAD_ARRAYS if kind == "InvalidRequest" else ARRAYS
    message = infer_message(arrays, "bert" if kind == "UnknownModel" else "teacher")
    metadata = () if kind == "Unauthenticated" else tuple(BEARER.items())
    with grpc.insecure_channel(teacher.grpc) as channel, pytest.raises(grpc.RpcError):
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=10, metadata=metadata)


def by_rest(teacher: RunningTeacher, kind: str) -> None:
    arrays = BAD_ARRAYS if kind == "InvalidRequest" else ARRAYS
    more = {"id": "x" * MESSAGE_BYTES} if kind == "TooLarge" else {}
    headers = {} if kind == "Unauthenticated" else BEARER
    name = "bert/versions/1" if kind == "UnknownModel" else "teacher"
    answer = httpx.post(f"{teacher.http}/v2/models/{name}/infer", json=infer_json(arrays, **more), headers=headers)
    assert 400 <= answer.status_code < 500


@pytest.mark.parametrize(
    ("door", "kind"),
    [
        *((door, kind) for door in (by_native, by_native_trips) for kind in ("InvalidRequest", "Unauthenticated")),
        (by_inference_trips, "InvalidRequest"),
        *((by_inference, kind) for kind in ("InvalidRequest", "Unauthenticated", "UnknownModel")),
        *((by_rest, kind) for kind in ("InvalidRequest", "Unauthenticated", "UnknownModel", "TooLarge")),
    ],
)
def test_a_refusal_is_counted_once(teacher: RunningTeacher, door: object, kind: str) -> None:
    assert callable(door)
    before = counted(teacher)
    door(teacher, kind)
    after = counted(teacher)
    assert {name: count - before[name] for name, count in after.items() if count != before[name]} == {kind: 1}


def test_looking_for_another_model_is_no_request(teacher: RunningTeacher) -> None:
    before = counted(teacher)
    assert httpx.get(f"{teacher.http}/v2/models/bert", headers=BEARER).status_code == 404
    assert counted(teacher) == before


def test_what_grpc_refuses_by_itself_is_not_seen_here(teacher: RunningTeacher) -> None:
    """A message over the limit is refused before any of this project's code runs: the manual says so."""
    before = counted(teacher)
    with grpc.insecure_channel(teacher.grpc) as channel:
        call = channel.unary_unary("/teacher.v1.TeacherService/Score")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"x" * (MESSAGE_BYTES + 1), timeout=10, metadata=tuple(BEARER.items()))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert counted(teacher) == before
