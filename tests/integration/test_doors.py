"""One service behind three doors: the same request has the same numbers, and the same error, whichever is taken."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.http as oip_http
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2_grpc

from protos.teacher.v1 import teacher_pb2 as pb
from protos.teacher.v1 import teacher_pb2_grpc
from teacher_server.artifact import load_artifact
from teacher_server.dense import read_request
from teacher_server.errors import Expired, InvalidRequest, TeacherError, TooLarge, WrongTeacher
from teacher_server.grpc_status import STATUS_OF
from teacher_server.http_status import HTTP_STATUS_OF
from teacher_server.rows import ScoreWork
from tests.serving import RunningTeacher, serve
from tests.teacher_server.dense_clients import (
    OF_TRIPS,
    Arrays,
    infer_json,
    infer_message,
    log_probs_in,
    log_probs_of_json,
    outputs_in,
    outputs_of_json,
    stock_inputs,
)
from tests.teacher_server.scoring import (
    dense_arrays_of,
    log_probs_of,
    message_of,
    oracle,
    ragged_trips,
    trip_arrays_of,
    trip_oracle,
    trips_message_of,
    trips_of,
    work_of,
    works,
)

INFER = "/v2/models/teacher/infer"


@dataclasses.dataclass(frozen=True)
class Doors:
    """Clients of one server."""

    native: teacher_pb2_grpc.TeacherServiceStub
    inference: Any  # the stub of GRPCInferenceService
    rest: httpx.Client
    stock_rest: oip_http.InferenceServerClient

    def scored(self, work: ScoreWork) -> NDArray[np.float32]:
        """[C] by the native door; it has one window a request, so each history is a request."""
        answers = [np.zeros(0, np.float32)]
        for history in range(len(work.lengths)):
            if work.scored[history]:
                answers.append(log_probs_of(self.native.Score(message_of(only(work, history)), timeout=30)))
        return np.concatenate(answers)

    def inferred(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """[B, n, K] by each form of the Open Inference Protocol."""
        raw, typed = (infer_message(arrays, "teacher", raw=raw) for raw in (True, False))
        return {
            "gRPC, raw": log_probs_in(self.inference.ModelInfer(raw, timeout=30)),
            "gRPC, typed": log_probs_in(self.inference.ModelInfer(typed, timeout=30)),
            "REST, JSON": log_probs_of_json(self.rest.post(INFER, json=infer_json(arrays)).json()),
            "REST, binary": self.stock_rest.infer("teacher", stock_inputs(arrays, oip_http)).as_numpy("LOG_PROBS"),
        }

    def judged(self, arrays: Arrays) -> dict[str, dict[str, NDArray[Any]]]:
        """Outputs by name, [B, 1] each, by each form of the Open Inference Protocol."""
        raw, typed = (infer_message(arrays, "teacher", raw=raw, outputs=OF_TRIPS) for raw in (True, False))
        outputs = [oip_http.InferRequestedOutput(name) for name in OF_TRIPS]
        stock = self.stock_rest.infer("teacher", stock_inputs(arrays, oip_http), outputs=outputs)
        record = infer_json(arrays, outputs=[{"name": name} for name in OF_TRIPS])
        return {
            "gRPC, raw": outputs_in(self.inference.ModelInfer(raw, timeout=30)),
            "gRPC, typed": outputs_in(self.inference.ModelInfer(typed, timeout=30)),
            "REST, JSON": outputs_of_json(self.rest.post(INFER, json=record).json()),
            "REST, binary": {name: stock.as_numpy(name) for name in OF_TRIPS},
        }


@pytest.fixture(scope="module")
def teacher(artifact: Path) -> Iterator[RunningTeacher]:
    with serve(artifact, "--max-positions", "5000") as running:
        yield running


@pytest.fixture(scope="module")
def doors(teacher: RunningTeacher) -> Iterator[Doors]:
    assert teacher.http
    with (
        grpc.insecure_channel(teacher.grpc) as channel,
        httpx.Client(base_url=teacher.http, timeout=30) as rest,
        oip_http.InferenceServerClient(teacher.http.removeprefix("http://")) as stock_rest,
    ):
        yield Doors(
            teacher_pb2_grpc.TeacherServiceStub(channel),
            service_pb2_grpc.GRPCInferenceServiceStub(channel),
            rest,
            stock_rest,
        )


def only(work: ScoreWork, history: int) -> ScoreWork:
    """The part of the work that is about one history."""
    one = slice(history, history + 1)
    tokens = np.split(work.tokens, np.cumsum(work.lengths)[:-1])[history]
    counts = np.split(work.candidate_counts, np.cumsum(work.scored)[:-1])[history]
    first = int(work.candidate_counts[: int(work.scored[:history].sum())].sum())
    candidates = work.candidates[first : first + int(counts.sum())]
    return ScoreWork(tokens, work.lengths[one], work.scored[one], work.windows[one], candidates, counts)


@pytest.mark.slow
@given(works(), st.sampled_from([0, -1, 3, 2**31 - 1]))
@settings(max_examples=60, deadline=None)
def test_every_door_gives_the_same_numbers(doors: Doors, artifact: Path, work: ScoreWork, junk: int) -> None:
    assume(work.scored.any())
    arrays = dense_arrays_of(work, junk)
    flat = doors.scored(work)
    np.testing.assert_allclose(flat, oracle(load_artifact(artifact).build(), work), atol=1e-5, rtol=2e-6)
    expected = read_request(arrays).log_probs(flat)
    answers = doors.inferred(arrays)
    for door, got in answers.items():
        # The native answers were computed history by history: the same within rounding.
        np.testing.assert_allclose(got, expected, atol=1e-5, rtol=2e-6, err_msg=door)
        np.testing.assert_array_equal(got, answers["gRPC, raw"], err_msg=door)


@given(ragged_trips(), st.sampled_from([0, -1, 2**31 - 1]))
@settings(max_examples=30, deadline=None)
def test_every_door_judges_whole_trips_alike(doors: Doors, artifact: Path, trips: list[list[int]], junk: int) -> None:
    reply = doors.native.Likelihood(trips_message_of(trips_of(trips)), timeout=30)
    found = np.frombuffer(reply.log_likelihoods, "<f8")
    sums, counts = trip_oracle(load_artifact(artifact).build(), trips)
    np.testing.assert_allclose(found, sums, atol=1e-4, rtol=2e-6)
    for door, answer in doors.judged(trip_arrays_of(trips_of(trips), junk)).items():
        np.testing.assert_array_equal(answer["LOG_LIKELIHOOD"][:, 0], found, err_msg=door)
        assert answer["TOKEN_COUNT"][:, 0].tolist() == counts, door


GOOD = work_of([[1, 2, 3]], [[[6, 7]]])
ERRORS: dict[str, tuple[type[TeacherError], ScoreWork, str, float | None]] = {
    "no cell": (InvalidRequest, work_of([[1, 99]], [[[6, 7]]]), "", None),
    "nothing to score": (InvalidRequest, work_of([[1, 2]], [[]]), "", None),
    "another teacher": (WrongTeacher, GOOD, "cd" * 32, None),
    "too large": (TooLarge, work_of([[1] * 5001], [[[1, 2]] * 5001]), "", None),
    "no time": (Expired, GOOD, "", 2e-6),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_every_door_tells_the_same_error(doors: Doors, kind: str) -> None:
    error, work, digest, timeout = ERRORS[kind]
    arrays = dense_arrays_of(work)
    parameters = {"digest": digest} | ({"timeout": round(timeout * 1e6)} if timeout else {})
    told = []
    calls = [(doors.native.Score, message_of(work, digest=digest))] if timeout is None else []
    for raw in (True, False):
        message = infer_message(arrays, "teacher", raw=raw)
        message.parameters["digest"].string_param = digest
        if timeout:
            message.parameters["timeout"].int64_param = round(timeout * 1e6)
        calls.append((doors.inference.ModelInfer, message))
    for call, message in calls:
        with pytest.raises(grpc.RpcError) as caught:
            call(message, timeout=30)
        assert caught.value.code() is STATUS_OF[error]
        told.append(caught.value.details())
    response = doors.rest.post(INFER, content=json.dumps(infer_json(arrays, parameters=parameters)))
    assert response.status_code == HTTP_STATUS_OF[error]
    assert set(told) == {response.json()["error"]}


def test_every_door_refuses_what_it_does_not_understand(doors: Doors, teacher: RunningTeacher) -> None:
    garbage = b"\xff\xff\xff\xff"
    with grpc.insecure_channel(teacher.grpc) as channel:
        for method in ("/teacher.v1.TeacherService/Score", "/inference.GRPCInferenceService/ModelInfer"):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(method)(garbage, timeout=30)
            assert caught.value.code() is STATUS_OF[InvalidRequest]
    assert doors.rest.post(INFER, content=garbage).status_code == HTTP_STATUS_OF[InvalidRequest]
    assert doors.native.Describe(pb.DescribeRequest(), timeout=30).digest == teacher.digest
