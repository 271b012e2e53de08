"""The Open Inference Protocol over HTTP: a real server process, asked by the stock client, as JSON and as bytes."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as oip
import tritonclient.http.aio as oip_aio
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from teacher_server.dense import read_request
from teacher_server.model import LMTAD
from teacher_server.rest_api import EXAMPLE
from teacher_server.rest_body import MAX_JSON_BYTES
from tests.serving import RunningTeacher, serve
from tests.teacher_server.dense_clients import OF_TRIPS, Arrays, infer_json, log_probs_of_json, stock_inputs
from tests.teacher_server.scoring import (
    BLOCK_SIZE,
    dense_arrays_of,
    oracle,
    trip_arrays_of,
    trip_oracle,
    trips_of,
    work_of,
)

GOOD = work_of([[1, 2, 3], [4, 5]], [[[6, 7], [8, 9, 10]], [[11, 12]]], window=2)
ARRAYS = dense_arrays_of(GOOD)
BODY_BYTES = 9_000_000
INFER = "/v2/models/teacher/infer"


@pytest.fixture(scope="module")
def teacher(artifact: Path) -> Iterator[RunningTeacher]:
    with serve(artifact, "--max-message-bytes", str(BODY_BYTES), "--max-positions", "5000") as running:
        yield running


@pytest.fixture
def http(teacher: RunningTeacher) -> Iterator[httpx.Client]:
    assert teacher.http
    with httpx.Client(base_url=teacher.http, timeout=30) as opened:
        yield opened


@pytest.fixture
def client(teacher: RunningTeacher) -> Iterator[oip.InferenceServerClient]:
    assert teacher.http
    with oip.InferenceServerClient(teacher.http.removeprefix("http://")) as opened:
        yield opened


def expected(model: LMTAD, arrays: Arrays = ARRAYS) -> NDArray[Any]:
    request = read_request(arrays)
    return request.log_probs(oracle(model, request.work).astype(np.float32))


def test_a_stock_client_learns_what_is_here(client: oip.InferenceServerClient, teacher: RunningTeacher) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("teacher")
    assert client.is_model_ready("teacher", "1")
    assert not client.is_model_ready("bert")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("teacher", "1")
    assert [tensor["name"] for tensor in metadata["inputs"]][:2] == ["HISTORY", "HISTORY_LENGTH"]
    config = client.get_model_config("teacher")
    assert config["parameters"]["digest"]["string_value"] == teacher.digest
    assert config["dynamic_batching"]["priority_levels"] == 2
    statistics = client.get_inference_statistics()["model_stats"][0]
    assert statistics == client.get_inference_statistics("teacher", "1")["model_stats"][0]
    assert statistics["name"] == "teacher"


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_a_stock_client_is_answered(
    client: oip.InferenceServerClient, model: LMTAD, teacher: RunningTeacher, binary: bool, compression: str | None
) -> None:
    answer = client.infer(
        "teacher",
        stock_inputs(ARRAYS, oip, binary_data=binary),
        request_id="seven",
        outputs=[oip.InferRequestedOutput("LOG_PROBS", binary_data=binary)],
        priority=2,
        timeout=10_000_000,
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
        parameters={"digest": teacher.digest},
    )
    got = answer.as_numpy("LOG_PROBS")
    padding = -np.inf if binary else np.nan  # JSON has null, of which the stock client makes NaN
    wanted = expected(model)
    np.testing.assert_allclose(got, np.where(np.isneginf(wanted), padding, wanted), atol=1e-5)
    response = answer.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == ("teacher", "1", "seven")
    assert (response["parameters"]["digest"], response["parameters"]["truncated"]) == (teacher.digest, 0)
    assert response["parameters"]["compute_us"] > 0


TRIPS = [[1, 2, 3], [4], [5] * (BLOCK_SIZE + 2)]


@pytest.mark.parametrize("binary", [(False, False), (False, True), (True, False), (True, True)])
def test_a_stock_client_asks_of_whole_trips(
    client: oip.InferenceServerClient, model: LMTAD, binary: tuple[bool, bool]
) -> None:
    """Each output says by itself whether it is wanted as binary data."""
    outputs = [oip.InferRequestedOutput(name, binary_data=each) for name, each in zip(OF_TRIPS, binary, strict=True)]
    answer = client.infer("teacher", stock_inputs(trip_arrays_of(trips_of(TRIPS)), oip), outputs=outputs)
    sums, counts = trip_oracle(model, TRIPS)
    np.testing.assert_allclose(answer.as_numpy("LOG_LIKELIHOOD")[:, 0], sums, rtol=1e-6)
    assert answer.as_numpy("TOKEN_COUNT")[:, 0].tolist() == counts
    assert answer.get_response()["parameters"]["truncated"] == 1


@pytest.mark.parametrize("outputs", [None, [oip.InferRequestedOutput("LOG_PROBS")]])
def test_half_precision_is_answered(
    client: oip.InferenceServerClient, model: LMTAD, outputs: list[oip.InferRequestedOutput] | None
) -> None:
    answer = client.infer("teacher", stock_inputs(ARRAYS, oip), outputs=outputs, parameters={"datatype": "FP16"})
    got = answer.as_numpy("LOG_PROBS")
    assert got.dtype == np.float16
    np.testing.assert_allclose(got, expected(model), atol=2e-3)


def test_a_stock_asyncio_client_is_answered(teacher: RunningTeacher, model: LMTAD) -> None:
    async def whole() -> list[NDArray[Any]]:
        assert teacher.http
        async with oip_aio.InferenceServerClient(teacher.http.removeprefix("http://")) as client:
            assert await client.is_server_ready()
            answers = await asyncio.gather(*(client.infer("teacher", stock_inputs(ARRAYS, oip)) for _ in range(8)))
            return [answer.as_numpy("LOG_PROBS") for answer in answers]

    for got in asyncio.run(whole()):
        np.testing.assert_allclose(got, expected(model), atol=1e-5)


@pytest.mark.parametrize("nested", [True, False])
def test_json_is_answered_in_json(http: httpx.Client, model: LMTAD, nested: bool) -> None:
    response = http.post(INFER, json=infer_json(ARRAYS, nested=nested))
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    json.loads(response.text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    np.testing.assert_allclose(log_probs_of_json(response.json()), expected(model), atol=1e-5)
    assert "id" not in response.json()


def test_many_numbers_are_written_piece_by_piece(http: httpx.Client, model: LMTAD) -> None:
    arrays = dense_arrays_of(work_of([[1] * 10] * 70, [[[3] * 100] * 10] * 70))
    response = http.post(INFER, json=infer_json(arrays))
    assert len(response.json()["outputs"][0]["data"]) == 70_000
    np.testing.assert_allclose(log_probs_of_json(response.json()), expected(model, arrays), atol=1e-5)


def test_compressed_bodies_are_the_same_requests(http: httpx.Client) -> None:
    plain = json.dumps(infer_json(ARRAYS)).encode()
    for encoding, body in (("gzip", gzip.compress(plain)), ("deflate", zlib.compress(plain)), ("identity", plain)):
        assert http.post(INFER, content=body, headers={"Content-Encoding": encoding}).status_code == 200


def with_input(**fields: Any) -> dict[str, Any]:
    """The good request, whose first input, HISTORY, has other fields."""
    body = infer_json(ARRAYS)
    body["inputs"][0] |= fields
    return body


def without_data() -> dict[str, Any]:
    body = infer_json(ARRAYS)
    del body["inputs"][0]["data"]
    return body


def parameters(**values: Any) -> dict[str, Any]:
    return infer_json(ARRAYS, parameters=values)


BAD: dict[str, tuple[Any, int, str]] = {
    "no JSON": (b"{", 400, "Invalid JSON: EOF while parsing an object at line 1 column 1"),
    "no text": (b"\xff\xfe", 400, "Invalid JSON"),
    "nothing": (b"", 400, "Invalid JSON"),
    "deep": (b"[" * 100_000, 400, "recursion limit exceeded"),
    "a list": ([], 400, "Input should be an object"),
    "no inputs": ({}, 400, "inputs: Field required"),
    "a number": ({"inputs": 5}, 400, "inputs: Input should be a valid array"),
    "unknown field": (infer_json(ARRAYS, input=[]), 400, "unknown field 'input': use id, parameters, inputs, outputs"),
    "unknown input field": (with_input(dtype="INT32"), 400, "inputs.0: Value error, unknown field 'dtype'"),
    "unknown input": (with_input(name="HISTORIES"), 400, "unknown input 'HISTORIES'"),
    "twice": (with_input(name="CANDIDATES"), 400, "input CANDIDATES is there twice"),
    "no data": (without_data(), 400, "input HISTORY must have either data or the parameter binary_data_size"),
    "both": (with_input(parameters={"binary_data_size": 24}), 400, "either data or the parameter binary_data_size"),
    "another datatype": (with_input(datatype="INT64"), 400, "input HISTORY is INT64, but must be INT32"),
    "another shape": (with_input(shape=[3, 2]), 400, "its lists are not nested as its shape [3, 2] says"),
    "another depth": (with_input(data=[[[1, 2, 3], [4, 5, 0]]]), 400, "its lists are not nested"),
    "no shape": (with_input(shape=[]), 400, "its lists are not nested as its shape [] says"),
    "a shape of texts": (with_input(shape=["2", 3]), 400, "inputs.0.shape.0: Input should be a valid integer"),
    "a shape of floats": (with_input(shape=[2, 3.0]), 400, "inputs.0.shape.1: Input should be a valid integer"),
    "too few": (with_input(data=[1, 2]), 400, "input HISTORY has 2 numbers, but its shape [2, 3] needs 6"),
    "ragged": (with_input(data=[[1, 2, 3], [4, 5]]), 400, "its lists are not nested"),
    "mixed": (with_input(data=[[1, 2, 3], 4, 5, 0]), 400, "inputs.0.data."),
    "a fraction": (with_input(data=[1, 2, 3, 4, 5, 0.5]), 400, "inputs.0.data.5: Input should be a valid integer"),
    "a whole float": (with_input(data=[1, 2, 3, 4, 5, 6.0]), 400, "inputs.0.data.5: Input should be a valid integer"),
    "a truth": (with_input(data=[[1, 2, 3], [4, True, 0]]), 400, "inputs.0.data.1.1: Input should be a valid integer"),
    "a text": (with_input(data=["1"] * 6), 400, "inputs.0.data.0: Input should be a valid integer"),
    "a null": (with_input(data=[None] * 6), 400, "inputs.0.data.0: Input should be a valid integer"),
    "too large": (with_input(data=[2**31] * 6), 400, "inputs.0.data.0: Input should be less than or equal to"),
    "huge": (with_input(data=[10**400] * 6), 400, "inputs.0.data.0"),
    "no cell": (with_input(data=[[1, 2, 3], [4, 20, 0]]), 400, "tokens[4] (history 1) is 20, which is no cell"),
    "unknown output": (infer_json(ARRAYS, outputs=[{"name": "LOGITS"}]), 400, "unknown output 'LOGITS'"),
    "classification": (
        infer_json(ARRAYS, outputs=[{"name": "LOG_PROBS", "parameters": {"classification": 1}}]),
        400,
        "unknown field 'classification': use binary_data",
    ),
    "a binary text": (
        infer_json(ARRAYS, outputs=[{"name": "LOG_PROBS", "parameters": {"binary_data": "yes"}}]),
        400,
        "outputs.0.parameters.binary_data: Input should be a valid boolean",
    ),
    "unknown parameter": (parameters(tau=2), 400, "unknown parameter 'tau': use digest"),
    "wrong kind": (parameters(digest=["a"]), 400, "parameter digest is ['a'], but must be a text"),
    "wrong timeout": (parameters(timeout=1.5), 400, "parameter timeout is 1.5, but must be a whole number"),
    "wrong binary": (parameters(binary_data_output=1), 400, "parameter binary_data_output is 1, but must be true or"),
    "another teacher": (parameters(digest="cd" * 32), 412, "cd" * 32),
    "no time": (parameters(timeout=1), 504, "deadline passed"),
    "too many positions": (
        infer_json(dense_arrays_of(work_of([[1] * 5001], [[[1, 2]] * 5001]))),
        413,
        "5001 scored positions, and 5000 are allowed",
    ),
    "too much JSON": (b" " * (MAX_JSON_BYTES + 1), 413, "bytes of JSON, and 8388608 are allowed: send binary data"),
    "too many bytes": (b" " * (BODY_BYTES + 1), 413, "more than the 9000000 bytes that are allowed"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_request_gets_its_status_and_the_server_goes_on(kind: str, http: httpx.Client) -> None:
    body, status, why = BAD[kind]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    refused(http.post(INFER, content=content), status, why)
    assert http.post(INFER, json=infer_json(ARRAYS)).status_code == 200


def refused(response: httpx.Response, status: int, why: str) -> None:
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    assert why in response.json()["error"]


def binary_body(length_of_json: int | None = None, tail: bytes = b"") -> tuple[bytes, dict[str, str]]:
    """The good request in binary data, and its headers."""
    inputs = [
        {"name": name, "datatype": "INT32", "shape": array.shape, "parameters": {"binary_data_size": array.nbytes}}
        for name, array in ARRAYS.items()
    ]
    text = json.dumps({"inputs": inputs}).encode()
    body = b"".join([text, *(array.tobytes() for array in ARRAYS.values()), tail])
    return body, {"Inference-Header-Content-Length": str(len(text) if length_of_json is None else length_of_json)}


def test_binary_data_must_be_all_there_and_no_more(http: httpx.Client) -> None:
    body, headers = binary_body()
    assert http.post(INFER, content=body, headers=headers).status_code == 200
    more, _ = binary_body(tail=b"1234")
    refused(http.post(INFER, content=more, headers=headers), 400, "4 bytes of binary data belong to no input")
    refused(http.post(INFER, content=body[:-4], headers=headers), 400, "input WINDOW has 4 bytes, but its shape [2, 1]")
    refused(http.post(INFER, content=body), 400, "Invalid JSON: trailing characters")
    for wrong in ("-1", "one", "999999", "1_0", "\u0663".encode()):
        response = http.post(INFER, content=body, headers={"Inference-Header-Content-Length": wrong})
        refused(response, 400, "the header Inference-Header-Content-Length is")


def test_what_is_compressed_is_bounded_and_whole(http: httpx.Client) -> None:
    bomb = gzip.compress(b" " * 100_000_000)
    assert len(bomb) < 100_000
    gzipped = {"Content-Encoding": "gzip"}
    refused(http.post(INFER, content=bomb, headers=gzipped), 413, "more than the 9000000 bytes that are allowed")
    good = gzip.compress(json.dumps(infer_json(ARRAYS)).encode())
    refused(http.post(INFER, content=b"nonsense", headers=gzipped), 400, "the body is no gzip data")
    for wrong in (good[:-9], good + b"more", b""):
        refused(http.post(INFER, content=wrong, headers=gzipped), 400, "not one whole stream of gzip data")
    response = http.post(INFER, content=good, headers={"Content-Encoding": "br"})
    refused(response, 400, "the body is encoded as 'br': use gzip, deflate or none")


def test_a_stock_client_hears_the_reason(client: oip.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="there is no model 'bert' here, only 'teacher'") as caught:
        client.infer("bert", stock_inputs(ARRAYS, oip))
    assert caught.value.status() == "404"


@pytest.mark.parametrize("page", ["", "/ready", "/config", "/stats", "/infer"])
def test_every_page_says_which_model_is_here(http: httpx.Client, page: str) -> None:
    method = "POST" if page == "/infer" else "GET"
    refused(http.request(method, f"/v2/models/bert{page}"), 404, "there is no model 'bert' here, only 'teacher'")
    refused(http.request(method, f"/v2/models/teacher/versions/2{page}"), 404, "has no version '2', only '1'")
    refused(http.request("DELETE", f"/v2/models/teacher{page}"), 405, "Method Not Allowed")


def test_other_pages_are_not_there(http: httpx.Client) -> None:
    for path in ("/v2/repository", "/v3", "/static-offline-docs/../../etc/passwd", "/static-offline-docs/"):
        refused(http.get(path), 404, "Not Found")


def test_the_description_is_complete(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    offered = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    for base in ("/v2/models/{model_name}", "/v2/models/{model_name}/versions/{model_version}"):
        assert f"POST {base}/infer" in offered
        assert {f"GET {base}{page}" for page in ("", "/ready", "/config", "/stats")} <= offered
    assert {"GET /v2", "GET /v2/health/live", "GET /v2/health/ready", "GET /v2/models/stats"} <= offered
    assert "POST /v2/repository/index" in offered
    known = document["components"]["schemas"]
    for name in references(document):
        assert name in known
    infer = document["paths"]["/v2/models/{model_name}/infer"]["post"]
    assert set(infer["requestBody"]["content"]) == {"application/json", "application/octet-stream"}
    assert set(infer["responses"]["200"]["content"]) == {"application/json", "application/octet-stream"}
    assert {"400", "401", "404", "412", "413", "429", "500", "503", "504"} <= set(infer["responses"])
    assert known["InferRequest"]["properties"].keys() == {"id", "parameters", "inputs", "outputs"}


def references(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        if isinstance(document.get("$ref"), str):
            yield document["$ref"].rsplit("/", 1)[1]
        for value in document.values():
            yield from references(value)
    elif isinstance(document, list):
        for value in document:
            yield from references(value)


def test_the_example_is_answered(http: httpx.Client, model: LMTAD) -> None:
    response = http.post(INFER, json=EXAMPLE)
    arrays = {tensor["name"]: np.array(tensor["data"], np.int32) for tensor in EXAMPLE["inputs"]}
    np.testing.assert_allclose(log_probs_of_json(response.json()), expected(model, arrays), atol=1e-5)
    assert response.json()["id"] == EXAMPLE["id"]


def test_the_docs_page_needs_nothing_from_outside(http: httpx.Client) -> None:
    page = http.get("/docs").text
    assert "//" not in page.replace("<!--", "").replace("// ", "")
    sources = [part.split('"')[0] for key in ('src="', 'href="') for part in page.split(key)[1:]]
    assert len(sources) == 3
    for source in sources:
        assert http.get(source).status_code == 200
