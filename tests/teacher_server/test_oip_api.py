"""The Open Inference Protocol over gRPC: a real server process, asked by the stock client and by raw bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as oip
import tritonclient.grpc.aio as oip_aio
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from teacher_server.artifact import load_artifact
from teacher_server.dense import read_request
from teacher_server.model import LMTAD
from tests.serving import RunningTeacher, serve
from tests.teacher_server.dense_clients import infer_message, log_probs_in, stock_inputs
from tests.teacher_server.scoring import BLOCK_SIZE, CELLS, SPECIAL, dense_arrays_of, oracle, work_of

GOOD = work_of([[1, 2, 3], [4, 5]], [[[6, 7], [8, 9, 10]], [[11, 12]]], window=2)
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


@pytest.fixture(scope="module")
def teacher(artifact: Path) -> Iterator[RunningTeacher]:
    with serve(artifact, "--model-name", "lm", "--max-positions", "5000", "--http-address", "none") as running:
        yield running


@pytest.fixture
def client(teacher: RunningTeacher) -> Iterator[oip.InferenceServerClient]:
    with oip.InferenceServerClient(teacher.grpc) as opened:
        yield opened


@pytest.fixture
def stub(teacher: RunningTeacher) -> Iterator[Any]:
    with grpc.insecure_channel(teacher.grpc) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def expected(model: LMTAD, arrays: dict[str, NDArray[Any]]) -> NDArray[Any]:
    request = read_request(arrays)
    return request.log_probs(oracle(model, request.work).astype(np.float32))


def test_a_stock_client_learns_what_is_here(client: oip.InferenceServerClient, artifact: Path) -> None:
    description = load_artifact(artifact).description
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("lm")
    assert client.is_model_ready("lm", "1")
    assert "binary_tensor_data" in client.get_server_metadata().extensions
    metadata = client.get_model_metadata("lm")
    assert (metadata.name, list(metadata.versions)) == ("lm", ["1"])
    shapes = {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in metadata.inputs}
    assert shapes["HISTORY"] == ("INT32", [-1, -1])
    assert shapes["CANDIDATES"] == ("INT32", [-1, -1, -1])
    assert [(o.name, o.datatype, list(o.shape)) for o in metadata.outputs] == [
        ("LOG_PROBS", "FP32", [-1, -1, -1]),
        ("LOG_LIKELIHOOD", "FP64", [-1, 1]),
        ("TOKEN_COUNT", "INT32", [-1, 1]),
    ]
    config = client.get_model_config("lm").config
    assert config.max_batch_size == 65_536
    assert {i.name for i in config.input if not i.optional} == {"HISTORY", "HISTORY_LENGTH"}
    assert config.HasField("dynamic_batching")
    told = {name: parameter.string_value for name, parameter in config.parameters.items()}
    assert told["digest"] == description.digest
    assert json.loads(told["grid"]) == asdict(description.grid)
    assert (told["vocab_size"], told["cells"], told["block_size"]) == (str(CELLS + 3), str(CELLS), str(BLOCK_SIZE))
    assert (told["pad"], told["eot"], told["sot"]) == tuple(map(str, (SPECIAL.pad, SPECIAL.eot, SPECIAL.sot)))
    assert json.loads(told["limits"])["max_positions"] == 5000
    assert told["compute_type"] == "float32"


@pytest.mark.parametrize("datatype", [None, "FP32", "FP16"])
def test_a_stock_client_is_answered(
    client: oip.InferenceServerClient, teacher: RunningTeacher, model: LMTAD, datatype: str | None
) -> None:
    arrays = dense_arrays_of(GOOD)
    answer = client.infer(
        "lm",
        stock_inputs(arrays, oip),
        request_id="seven",
        outputs=[oip.InferRequestedOutput("LOG_PROBS")],
        priority=2,
        timeout=10_000_000,
        parameters={"digest": teacher.digest} | ({"datatype": datatype} if datatype else {}),
    )
    got = answer.as_numpy("LOG_PROBS")
    assert got.dtype == (np.float16 if datatype == "FP16" else np.float32)
    np.testing.assert_allclose(got, expected(model, arrays), atol=2e-3 if datatype == "FP16" else 1e-5)
    response = answer.get_response()
    assert (response.model_name, response.model_version, response.id) == ("lm", "1", "seven")
    told = response.parameters
    assert (told["digest"].string_param, told["truncated"].int64_param) == (teacher.digest, 0)
    assert told["compute_us"].int64_param > 0
    assert told["queue_us"].int64_param >= 0


def test_a_stock_asyncio_client_is_answered(teacher: RunningTeacher, model: LMTAD) -> None:
    arrays = dense_arrays_of(GOOD)

    async def whole() -> list[NDArray[Any]]:
        async with oip_aio.InferenceServerClient(teacher.grpc) as client:
            assert await client.is_server_ready()
            answers = await asyncio.gather(*(client.infer("lm", stock_inputs(arrays, oip)) for _ in range(8)))
            return [answer.as_numpy("LOG_PROBS") for answer in answers]

    for got in asyncio.run(whole()):
        np.testing.assert_allclose(got, expected(model, arrays), atol=1e-5)


def test_truncation_is_told(client: oip.InferenceServerClient) -> None:
    arrays = dense_arrays_of(work_of([[1] * (BLOCK_SIZE + 3)], [[[1, 2]] * 5]))
    answer = client.infer("lm", stock_inputs(arrays, oip))
    assert answer.get_response().parameters["truncated"].int64_param == 4


def test_typed_contents_are_read_too(stub: Any, model: LMTAD) -> None:
    arrays = dense_arrays_of(GOOD, junk=-1)
    response = stub.ModelInfer(infer_message(arrays, "lm", raw=False), timeout=10)
    np.testing.assert_allclose(log_probs_in(response), expected(model, arrays), atol=1e-5)


def test_statistics_are_what_was_done(artifact: Path) -> None:
    with serve(artifact, "--http-address", "none") as teacher, oip.InferenceServerClient(teacher.grpc) as client:

        def counted() -> Any:
            return client.get_inference_statistics("teacher").model_stats[0]

        before = counted()
        assert (before.name, before.version, before.inference_count) == ("teacher", "1", 0)
        for _ in range(3):
            client.infer("teacher", stock_inputs(dense_arrays_of(GOOD), oip))
        with pytest.raises(InferenceServerException):
            client.infer("teacher", stock_inputs(dense_arrays_of(GOOD), oip), parameters={"digest": "cd" * 32})
        after = counted()
        assert client.get_inference_statistics().model_stats[0] == after
    assert after.inference_count == 3 * len(GOOD.candidate_counts)
    assert after.execution_count - before.execution_count == 3
    stats = after.inference_stats
    assert (stats.success.count, stats.fail.count, stats.queue.count, stats.compute_infer.count) == (3, 1, 3, 3)
    assert 0 < stats.compute_infer.ns < stats.success.ns
    assert after.last_inference > 0
    assert sum(batch.compute_infer.count for batch in after.batch_stats) == after.execution_count


def changed(**fields: Any) -> pb.ModelInferRequest:
    """The good message with other fields."""
    message = infer_message(dense_arrays_of(GOOD), "lm")
    for name, value in fields.items():
        if isinstance(value, str):
            setattr(message, name, value)
        else:
            message.ClearField(name)
            getattr(message, name).extend(value)
    return message


def with_parameter(name: str, kind: str, value: object) -> pb.ModelInferRequest:
    message = changed()
    setattr(message.parameters[name], kind, value)
    return message


def with_input(**fields: Any) -> pb.ModelInferRequest:
    """The good message whose first input, HISTORY, is declared otherwise."""
    message = changed()
    for name, value in fields.items():
        if isinstance(value, list):
            message.inputs[0].ClearField(name)
            getattr(message.inputs[0], name).extend(value)
        else:
            setattr(message.inputs[0], name, value)
    return message


def with_typed_too() -> pb.ModelInferRequest:
    message = changed()
    message.inputs[0].contents.int_contents.append(1)
    return message


def with_shared_memory() -> pb.ModelInferRequest:
    message = changed()
    message.inputs[0].parameters["shared_memory_region"].string_param = "mine"
    return message


def with_valueless_parameter() -> pb.ModelInferRequest:
    message = changed()
    message.parameters["digest"].SetInParent()
    return message


OUTPUT = pb.ModelInferRequest.InferRequestedOutputTensor
BAD = {
    "no model": (changed(model_name=""), NOT_FOUND, "there is no model '' here, only 'lm'"),
    "another model": (changed(model_name="bert"), NOT_FOUND, "there is no model 'bert' here"),
    "a long name": (changed(model_name="Ж\n" * 50_000), NOT_FOUND, "there is no model"),
    "another version": (changed(model_version="2"), NOT_FOUND, "has no version '2'"),
    "nothing": (pb.ModelInferRequest(model_name="lm"), INVALID, "input HISTORY is missing"),
    "another output": (changed(outputs=[OUTPUT(name="LOGITS")]), INVALID, "unknown output 'LOGITS'"),
    "raw too few": (changed(raw_input_contents=[b""]), INVALID, "raw_input_contents has 1 entries for 6 inputs"),
    "raw too short": (changed(raw_input_contents=[b"123"] * 6), INVALID, "HISTORY has 3 bytes, but its shape [2, 3]"),
    "typed too short": (changed(raw_input_contents=[]), INVALID, "input HISTORY has 0 numbers, but its shape"),
    "raw and typed": (with_typed_too(), INVALID, "has typed contents beside raw_input_contents"),
    "twice": (with_input(name="CANDIDATES"), INVALID, "input CANDIDATES is there twice"),
    "unknown input": (with_input(name="HISTORIES"), INVALID, "unknown input 'HISTORIES'"),
    "another datatype": (with_input(datatype="INT64"), INVALID, "input HISTORY is INT64, but must be INT32"),
    "no datatype": (with_input(datatype=""), INVALID, "input HISTORY is of no datatype"),
    "no shape": (with_input(shape=[]), INVALID, "input HISTORY has shape []"),
    "negative shape": (with_input(shape=[-2, -3]), INVALID, "dimensions of at least 1"),
    "huge shape": (with_input(shape=[2**62, 2**62]), INVALID, "needs 85070591730234615865"),
    "many dimensions": (with_input(shape=[1] * 1000), INVALID, "use 1 to 3 dimensions"),
    "shared memory": (with_shared_memory(), INVALID, "'shared_memory_region' is not supported"),
    "unknown parameter": (with_parameter("tau", "double_param", 2.0), INVALID, "unknown parameter 'tau': use digest"),
    "parameter without value": (with_valueless_parameter(), INVALID, "parameter digest has no value"),
    "wrong kind": (with_parameter("digest", "int64_param", 7), INVALID, "digest is 7, but must be a text"),
    "wrong priority": (with_parameter("priority", "uint64_param", 3), INVALID, "priority is 3: use 1"),
    "a true timeout": (with_parameter("timeout", "bool_param", True), INVALID, "must be a whole number"),
    "negative timeout": (with_parameter("timeout", "int64_param", -5), INVALID, "timeout is -5"),
    "wrong type": (with_parameter("datatype", "string_param", "BF16"), INVALID, "use FP32 or FP16"),
    "another teacher": (
        with_parameter("digest", "string_param", "cd" * 32),
        grpc.StatusCode.FAILED_PRECONDITION,
        "cd" * 32,
    ),
    "too many positions": (
        infer_message(dense_arrays_of(work_of([[1] * 5001], [[[1, 2]] * 5001])), "lm"),
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "5001 scored positions, and 5000 are allowed",
    ),
    "no time": (with_parameter("timeout", "int64_param", 1), grpc.StatusCode.DEADLINE_EXCEEDED, "deadline passed"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_request_gets_its_status_and_the_server_goes_on(kind: str, stub: Any) -> None:
    message, status, details = BAD[kind]
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(message, timeout=10)
    assert caught.value.code() is status
    assert details in caught.value.details()
    assert stub.ModelInfer(changed(), timeout=10).outputs[0].name == "LOG_PROBS"


@pytest.mark.parametrize("method", [m.name for m in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods])
def test_bytes_that_are_no_message_are_a_bad_request(method: str, teacher: RunningTeacher) -> None:
    with grpc.insecure_channel(teacher.grpc) as channel:
        call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff\xff\xff\xff", timeout=10)
    # What is no part of this server has a status of its own: repositories, shared memory, streams.
    assert caught.value.code() in (INVALID, grpc.StatusCode.UNIMPLEMENTED)
    offered = method.startswith("Server") or method in ("ModelReady", "ModelMetadata", "ModelConfig", "ModelInfer")
    assert (caught.value.code() is INVALID) == (offered or method in ("ModelStatistics", "RepositoryIndex"))


@pytest.mark.parametrize("kind", [pb.ModelReadyRequest, pb.ModelMetadataRequest, pb.ModelConfigRequest])
def test_every_method_says_which_model_is_here(kind: Any, stub: Any) -> None:
    call = getattr(stub, kind.__name__.removesuffix("Request"))
    for wrong in ({"name": "bert"}, {"name": "lm", "version": "2"}):
        with pytest.raises(grpc.RpcError, match="only") as caught:
            call(kind(**wrong), timeout=10)
        assert caught.value.code() is NOT_FOUND
