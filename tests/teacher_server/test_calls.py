"""Request ids: the caller's or a new one, told to the caller through every door, and never another call's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from protos.teacher.v1 import teacher_pb2 as pb
from protos.teacher.v1 import teacher_pb2_grpc
from teacher_server.calls import Calls, current_id, take_over_id
from tests.serving import RunningTeacher
from tests.teacher_server.scoring import message_of, work_of

GOOD = message_of(work_of([[1, 2, 3]], [[[6, 7]]]))


@pytest.fixture
def channel(teacher: RunningTeacher) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(teacher.grpc) as opened:
        yield opened


def id_of(call: grpc.Call) -> str:
    return str(dict(call.trailing_metadata())["x-request-id"])


def test_the_callers_id_comes_back_with_answers_and_errors(channel: grpc.Channel) -> None:
    score = teacher_pb2_grpc.TeacherServiceStub(channel).Score
    _, call = score.with_call(GOOD, timeout=10, metadata=[("x-request-id", "job-7/step:12")])
    assert id_of(call) == "job-7/step:12"
    with pytest.raises(grpc.RpcError) as refused:
        score(pb.ScoreRequest(), timeout=10, metadata=[("x-request-id", "job-8")])
    assert id_of(refused.value) == "job-8"


def test_without_one_there_is_a_new_one_each_time(channel: grpc.Channel) -> None:
    describe = teacher_pb2_grpc.TeacherServiceStub(channel).Describe
    ids = [id_of(describe.with_call(pb.DescribeRequest(), timeout=10)[1]) for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(len(each) == 16 for each in ids)


@pytest.mark.parametrize("bad", ["two words", "x" * 129, 'quo"te', "<b>"])
def test_an_id_that_could_harm_a_log_or_a_header_is_replaced(channel: grpc.Channel, bad: str) -> None:
    describe = teacher_pb2_grpc.TeacherServiceStub(channel).Describe
    _, call = describe.with_call(pb.DescribeRequest(), timeout=10, metadata=[("x-request-id", bad)])
    assert id_of(call) != bad


def test_the_id_in_an_oip_message_is_taken_over(channel: grpc.Channel) -> None:
    infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
    with pytest.raises(grpc.RpcError) as refused:
        infer(service_pb2.ModelInferRequest(model_name="none", id="oip-1"), timeout=10)
    assert id_of(refused.value) == "oip-1"


def test_the_id_in_a_rest_body_is_taken_over(teacher: RunningTeacher) -> None:
    body = {"id": "rest-1", "inputs": [{"name": "HISTORY", "datatype": "INT32", "shape": [1, 1], "data": [1]}]}
    answer = httpx.post(f"{teacher.http}/v2/models/teacher/infer", json=body)
    assert (answer.status_code, answer.headers["x-request-id"]) == (400, "rest-1")


def test_http_pages_have_ids_too(teacher: RunningTeacher) -> None:
    assert httpx.get(f"{teacher.http}/healthz", headers={"x-request-id": "page-1"}).headers["x-request-id"] == "page-1"
    made = httpx.get(f"{teacher.http}/no-such-page", headers={"x-request-id": "a b"}).headers["x-request-id"]
    assert len(made) == 16


def test_calls_at_the_same_time_keep_their_ids() -> None:
    async def one(name: str) -> None:
        with Calls().entered("Score", [("x-request-id", name)]) as call:
            for _ in range(5):
                await asyncio.sleep(0)
                assert (current_id(), call.id) == (name, name)
            if name == "3":
                take_over_id("three")
            await asyncio.sleep(0)
            assert call.id == ("three" if name == "3" else name)

    async def whole() -> None:
        await asyncio.gather(*(one(str(number)) for number in range(9)))
        assert current_id() == ""

    asyncio.run(whole())


def test_outside_of_a_call_nothing_is_taken_over(tmp_path: Path) -> None:
    take_over_id("nobody")
    assert current_id() == ""
