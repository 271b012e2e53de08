"""The gRPC door of a real server process, over a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos.teacher.v1 import teacher_pb2 as pb
from protos.teacher.v1 import teacher_pb2_grpc
from teacher_server.artifact import load_artifact
from teacher_server.grpc_api import token_type_of
from teacher_server.model import LMTAD
from tests.serving import RunningTeacher, serve, tiny_artifact
from tests.teacher_server.scoring import (
    BLOCK_SIZE,
    CELLS,
    SPECIAL,
    log_probs_of,
    message_of,
    oracle,
    trip_oracle,
    trips_message_of,
    trips_of,
    work_of,
)

GOOD = work_of([[1, 2, 3], [4, 5]], [[[6, 7], [8, 9, 10]], [[11, 12]]], window=2)
MESSAGE_BYTES = 100_000


@pytest.fixture(scope="module")
def teacher(artifact: Path) -> Iterator[RunningTeacher]:
    with serve(artifact, "--max-positions", "5000", "--max-message-bytes", str(MESSAGE_BYTES)) as running:
        yield running


@pytest.fixture
def channel(teacher: RunningTeacher) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(teacher.grpc) as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.Channel) -> teacher_pb2_grpc.TeacherServiceStub:
    return teacher_pb2_grpc.TeacherServiceStub(channel)


def test_describe_says_all_that_a_client_needs(stub: teacher_pb2_grpc.TeacherServiceStub, artifact: Path) -> None:
    got = stub.Describe(pb.DescribeRequest(), timeout=10)
    description = load_artifact(artifact).description
    assert got.digest == description.digest
    assert (got.vocab_size, got.cells, got.block_size) == (CELLS + 3, CELLS, BLOCK_SIZE)
    assert (got.pad, got.eot, got.sot) == (SPECIAL.pad, SPECIAL.eot, SPECIAL.sot)
    for name, value in vars(description.grid).items():
        assert getattr(got.grid, name) == value
    assert got.token_type == pb.TOKEN_TYPE_UINT16
    assert got.compute_type == "float32"
    assert (got.limits.max_positions, got.limits.max_message_bytes) == (5000, MESSAGE_BYTES)


@pytest.mark.parametrize("reply_type", [pb.FLOAT_TYPE_UNSPECIFIED, pb.FLOAT_TYPE_FLOAT32, pb.FLOAT_TYPE_FLOAT16])
def test_score_equals_the_oracle(
    stub: teacher_pb2_grpc.TeacherServiceStub, teacher: RunningTeacher, model: LMTAD, reply_type: pb.FloatType
) -> None:
    response = stub.Score(message_of(GOOD, reply_type=reply_type, digest=teacher.digest), timeout=10)
    assert response.reply_type == (reply_type or pb.FLOAT_TYPE_FLOAT32)
    half = response.reply_type == pb.FLOAT_TYPE_FLOAT16
    np.testing.assert_allclose(log_probs_of(response), oracle(model, GOOD), atol=2e-3 if half else 1e-5)
    assert len(response.log_probs) == len(GOOD.candidates) * (2 if half else 4)
    assert (response.digest, response.truncated) == (teacher.digest, 0)
    assert response.compute_us > 0


def test_truncation_is_counted(stub: teacher_pb2_grpc.TeacherServiceStub) -> None:
    work = work_of([[1] * (BLOCK_SIZE + 3)], [[[1, 2]] * 5])
    assert stub.Score(message_of(work), timeout=10).truncated == 4


def test_many_callers_at_once_each_get_their_own(teacher: RunningTeacher, model: LMTAD) -> None:
    generator = np.random.default_rng(1)
    works = []
    for _ in range(64):
        histories = [generator.integers(0, CELLS, size).tolist() for size in generator.integers(1, 20, 3)]
        candidates = [[generator.integers(0, CELLS, 3).tolist() for _ in history] for history in histories]
        works.append(work_of(histories, candidates, int(generator.integers(0, 5))))

    def ask(channel: grpc.Channel, number: int) -> np.ndarray:
        stub = teacher_pb2_grpc.TeacherServiceStub(channel)
        return log_probs_of(stub.Score(message_of(works[number]), timeout=30))

    with grpc.insecure_channel(teacher.grpc) as channel, ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda number: ask(channel, number), range(64)))
    for work, got in zip(works, answers, strict=True):
        np.testing.assert_allclose(got, oracle(model, work), atol=1e-5, rtol=2e-6)


def u2(*values: int) -> bytes:
    return np.array(values, "<u2").tobytes()


def u4(*values: int) -> bytes:
    return np.array(values, "<u4").tobytes()


INVALID, PRECONDITION, EXHAUSTED = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
BAD = {
    "empty message": (pb.ScoreRequest(), INVALID, "lengths is empty"),
    "half a token": (message_of(GOOD, tokens=b"123"), INVALID, "tokens has 3 bytes, not a multiple of 2"),
    "half a length": (message_of(GOOD, lengths=b"12345"), INVALID, "lengths has 5 bytes, not a multiple of 4"),
    "half a scored": (message_of(GOOD, scored=b"1"), INVALID, "scored has 1 bytes"),
    "half a candidate": (message_of(GOOD, candidates=b"1"), INVALID, "candidates has 1 bytes"),
    "half a count": (message_of(GOOD, candidate_counts=b"1"), INVALID, "candidate_counts has 1 bytes"),
    "no tokens": (message_of(GOOD, tokens=b""), INVALID, "lengths adds up to 5, but tokens has 0"),
    "a history of nothing": (message_of(GOOD, lengths=u4(5, 0)), INVALID, "lengths[1] is 0"),
    "huge length": (message_of(GOOD, lengths=u4(3, 2**32 - 1)), INVALID, "but tokens has 5 entries"),
    "scored is short": (message_of(GOOD, scored=u4(2)), INVALID, "scored has 1 entries, but lengths has 2"),
    "scored too many": (message_of(GOOD, scored=u4(2, 3)), INVALID, "scored[1] is 3"),
    "nothing scored": (message_of(GOOD, scored=u4(0, 0)), INVALID, "nothing to score"),
    "counts missing": (message_of(GOOD, candidate_counts=u2(2, 3)), INVALID, "candidate_counts has 2 entries"),
    "counts too large": (message_of(GOOD, candidate_counts=u2(2, 3, 9)), INVALID, "but candidates has 7"),
    "PAD in a history": (message_of(GOOD, tokens=u2(1, 2, 20, 4, 5)), INVALID, "tokens[2] (history 0) is 20"),
    "token out of range": (message_of(GOOD, tokens=u2(1, 2, 3, 4, 65_535)), INVALID, "cells are 0..19"),
    "SOT as a candidate": (message_of(GOOD, candidates=u2(6, 7, 8, 9, 10, 11, 22)), INVALID, "is 22, which is no cell"),
    "unknown reply type": (message_of(GOOD, reply_type=7), INVALID, "reply_type is 7"),
    "another teacher": (message_of(GOOD, digest="cd" * 32), PRECONDITION, "cd" * 32),
    "too many positions": (
        message_of(work_of([[1] * 5001], [[[1, 2]] * 5001])),
        EXHAUSTED,
        "5001 scored positions, and 5000 are allowed",
    ),
    "message too large": (message_of(work_of([[1] * MESSAGE_BYTES], [[[1, 2]]])), EXHAUSTED, "larger than max"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_request_gets_its_status_and_the_server_goes_on(
    kind: str, stub: teacher_pb2_grpc.TeacherServiceStub, model: LMTAD
) -> None:
    message, status, details = BAD[kind]
    with pytest.raises(grpc.RpcError) as caught:
        stub.Score(message, timeout=10)
    assert caught.value.code() is status
    assert details in caught.value.details()
    np.testing.assert_allclose(log_probs_of(stub.Score(message_of(GOOD), timeout=10)), oracle(model, GOOD), atol=1e-5)


TRIPS = [[1, 2, 3], [4, 5], [7] * (BLOCK_SIZE + 3)]
TRIP_WORK = trips_of(TRIPS)


def test_likelihood_equals_the_oracle(
    stub: teacher_pb2_grpc.TeacherServiceStub, teacher: RunningTeacher, model: LMTAD
) -> None:
    response = stub.Likelihood(
        trips_message_of(TRIP_WORK, digest=teacher.digest, priority=pb.PRIORITY_BULK), timeout=10
    )
    sums, counts = trip_oracle(model, TRIPS)
    np.testing.assert_allclose(np.frombuffer(response.log_likelihoods, "<f8"), sums, rtol=1e-6)
    assert np.frombuffer(response.token_counts, "<u4").tolist() == counts == [4, 3, BLOCK_SIZE]
    assert (response.digest, response.truncated) == (teacher.digest, 1)
    assert response.compute_us > 0


BAD_TRIPS = {
    "empty message": (pb.LikelihoodRequest(), INVALID, "lengths is empty"),
    "half a token": (trips_message_of(TRIP_WORK, tokens=b"123"), INVALID, "tokens has 3 bytes"),
    "a trip of nothing": (trips_message_of(TRIP_WORK, lengths=u4(3, 2, 15, 0)), INVALID, "lengths[3] is 0"),
    "lengths too large": (trips_message_of(TRIP_WORK, lengths=u4(3, 2, 16)), INVALID, "but tokens has 20"),
    "EOT in a trip": (
        trips_message_of(TRIP_WORK, tokens=u2(SPECIAL.eot), lengths=u4(1)),
        INVALID,
        "tokens[0] (trip 0)",
    ),
    "unknown priority": (trips_message_of(TRIP_WORK, priority=2), INVALID, "priority is 2"),
    "another teacher": (trips_message_of(TRIP_WORK, digest="cd" * 32), PRECONDITION, "cd" * 32),
    "too many tokens": (trips_message_of(trips_of([[1] * 5000])), EXHAUSTED, "5001 scored positions"),
}


@pytest.mark.parametrize("kind", BAD_TRIPS)
def test_a_bad_question_about_trips_gets_its_status(kind: str, stub: teacher_pb2_grpc.TeacherServiceStub) -> None:
    message, status, details = BAD_TRIPS[kind]
    with pytest.raises(grpc.RpcError) as caught:
        stub.Likelihood(message, timeout=10)
    assert caught.value.code() is status
    assert details in caught.value.details()


@pytest.mark.parametrize("method", ["Describe", "Score", "Likelihood"])
def test_bytes_that_are_no_message_are_a_bad_request(channel: grpc.Channel, method: str) -> None:
    call = channel.unary_unary(f"/teacher.v1.TeacherService/{method}")
    with pytest.raises(grpc.RpcError, match=f"4 bytes that are no teacher.v1.{method}Request") as caught:
        call(b"\xff\xff\xff\xff", timeout=10)
    assert caught.value.code() is INVALID


def test_wrong_teacher_names_both(stub: teacher_pb2_grpc.TeacherServiceStub, teacher: RunningTeacher) -> None:
    with pytest.raises(grpc.RpcError, match=f"{'cd' * 32}.*{teacher.digest}"):
        stub.Score(message_of(GOOD, digest="cd" * 32), timeout=10)


def test_health_knows_the_server_and_the_services(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", "teacher.v1.TeacherService", "inference.GRPCInferenceService"):
        response = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
        assert response.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="no.such.Service"), timeout=10)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_the_services_and_their_methods(channel: grpc.Channel) -> None:
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="teacher.v1.TeacherService"),
    ]
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    listing, file = stub.ServerReflectionInfo(iter(asked), timeout=10)
    names = {service.name for service in listing.list_services_response.service}
    assert {"teacher.v1.TeacherService", "inference.GRPCInferenceService", "grpc.health.v1.Health"} <= names
    described = FileDescriptorProto.FromString(file.file_descriptor_response.file_descriptor_proto[0])
    assert [method.name for method in described.service[0].method] == ["Describe", "Score", "Likelihood"]


def test_tokens_travel_in_two_bytes_where_they_fit() -> None:
    assert token_type_of(65_536) == pb.TOKEN_TYPE_UINT16
    assert token_type_of(65_537) == pb.TOKEN_TYPE_INT32


def test_a_large_vocabulary_travels_in_four_bytes(tmp_path: Path) -> None:
    tiny_artifact(tmp_path / "large", rows=256, columns=256, n_layer=1)
    work = work_of([[65_535, 3]], [[[65_534, 1, 2], [0, 65_535]]])
    message = message_of(work, tokens=work.tokens.tobytes(), candidates=work.candidates.tobytes())
    with serve(tmp_path / "large", "--http-address", "none") as teacher:
        assert teacher.http is None
        with grpc.insecure_channel(teacher.grpc) as channel:
            stub = teacher_pb2_grpc.TeacherServiceStub(channel)
            assert stub.Describe(pb.DescribeRequest(), timeout=10).token_type == pb.TOKEN_TYPE_INT32
            got = log_probs_of(stub.Score(message, timeout=10))
    expected = oracle(load_artifact(tmp_path / "large").build(), work)
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=2e-6)
