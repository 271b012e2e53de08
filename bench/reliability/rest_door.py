"""Fuzz of the REST door: JSON, binary data behind JSON, both of them compressed or not."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import numpy as np

from bench.reliability.dense import dense_answer, dense_question, numbers_of
from bench.reliability.doors import CALLERS_FAULTS, Answer, Numbers, Senseless
from bench.reliability.mutations import spoilt_bytes, spoilt_record
from bench.reliability.oracle import Oracle
from teacher_server.errors import InvalidRequest
from teacher_server.http_status import HTTP_STATUS_OF
from teacher_server.rows import ScoreWork
from tests.teacher_server.dense_clients import DTYPES, infer_json, outputs_of_json

LENGTH = "inference-header-content-length"
ENCODERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
INFER = "/v2/models/teacher/infer"


@dataclass(frozen=True, eq=False)
class RestRequest:
    """A body before compression, and what its headers say of it."""

    content: bytes
    json_length: str | None = None  # None: all of it
    encoding: str = ""
    sent: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sent", ENCODERS.get(self.encoding, bytes)(self.content))

    @property
    def headers(self) -> dict[str, str]:
        told = {LENGTH: self.json_length, "content-encoding": self.encoding, "content-type": "application/json"}
        return {name: value for name, value in told.items() if value}


class RestDoor:
    """`POST /v2/models/teacher/infer`."""

    name = "rest"
    refusals = frozenset(str(HTTP_STATUS_OF[error]) for error in CALLERS_FAULTS)
    senseless = str(HTTP_STATUS_OF[InvalidRequest])

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    def request(self, work: ScoreWork, chance: random.Random) -> RestRequest:
        arrays, outputs = dense_question(work, chance)
        record = infer_json(arrays, nested=chance.random() < 0.5, id=chance.choice(("", "seven")))
        record["outputs"] = [{"name": name} for name in outputs]
        binary = chance.random() < 0.5
        record["parameters"] = {"datatype": chance.choice(("FP32", "FP16")), "binary_data_output": binary}
        encoding = chance.choice(("", "", "gzip", "deflate"))
        if not binary:
            return RestRequest(json.dumps(record).encode(), encoding=encoding)
        for tensor in record["inputs"]:
            del tensor["data"]
            tensor["parameters"] = {"binary_data_size": arrays[tensor["name"]].nbytes}
        text = json.dumps(record).encode()
        tail = b"".join(array.tobytes() for array in arrays.values())
        return RestRequest(text + tail, str(len(text)), encoding)

    def spoilt(self, request: RestRequest, chance: random.Random) -> RestRequest:
        match chance.randrange(6):
            case 0:
                return replace(request, content=spoilt_bytes(request.content, chance))
            case 1:
                return replace(request, json_length=chance.choice(("0", "7", "-1", "x", "999999", "9" * 30)))
            case 2:
                return replace(request, encoding=chance.choice(("br", "gzip, gzip", "identity", "x")))
            case 3 if request.encoding:
                broken = replace(request)
                object.__setattr__(broken, "sent", spoilt_bytes(request.sent, chance))
                return broken
            case _:
                text, tail = self._parts(request)
                told = json.dumps(spoilt_record(json.loads(text), chance)).encode()
                return replace(request, content=told + tail, json_length=request.json_length and str(len(told)))

    def random(self, chance: random.Random) -> RestRequest:
        content = chance.choice((b"", b"{", b'{"inputs":')) + chance.randbytes(chance.randint(0, 200))
        return RestRequest(content, chance.choice((None, "3")), chance.choice(("", "gzip")))

    async def ask(self, request: RestRequest) -> Answer:
        try:
            reply = await self._client.post(INFER, content=request.sent, headers=request.headers)
        except httpx.TransportError as error:
            return Answer("no answer", repr(error))
        if reply.status_code != 200:
            return Answer(str(reply.status_code), reply.json()["error"])  # there is always one
        if reply.headers["content-type"] == "application/json":
            return Answer("OK", numbers=numbers_of(outputs_of_json(reply.json())))
        length = int(reply.headers[LENGTH])
        return Answer("OK", numbers=numbers_of(_outputs_in(json.loads(reply.content[:length]), reply.content[length:])))

    def expected(self, request: RestRequest, oracle: Oracle) -> Numbers:
        try:
            text, tail = self._parts(request)
            record = json.loads(text.decode())
        except (ValueError, RecursionError):  # of which UnicodeDecodeError and JSONDecodeError are kinds
            raise Senseless from None
        arrays = {}
        for tensor in record["inputs"]:
            size = tensor.get("parameters", {}).get("binary_data_size")
            numbers = np.frombuffer(tail[:size], "<i4") if size is not None else _flat(tensor["data"])
            tail = tail[size or 0 :]
            arrays[tensor["name"]] = numbers.reshape(tensor["shape"])
        outputs = [output["name"] for output in record.get("outputs", [])]
        return dense_answer(arrays, outputs, record.get("parameters", {}).get("datatype", "FP32"), oracle)

    @staticmethod
    def _parts(request: RestRequest) -> tuple[bytes, bytes]:
        """JSON and binary data. Raises ValueError for a length that is none."""
        length = int(request.json_length or len(request.content))
        if not 0 <= length <= len(request.content):
            raise ValueError(f"{length} bytes of JSON in {len(request.content)}")
        return request.content[:length], request.content[length:]


def _outputs_in(record: Any, tail: bytes) -> dict[str, Numbers]:
    """Outputs by name, some of them perhaps in the JSON."""
    found = outputs_of_json({"outputs": [output for output in record["outputs"] if "data" in output]})
    for output in record["outputs"]:
        if "data" not in output:
            size = output["parameters"]["binary_data_size"]
            found[output["name"]] = np.frombuffer(tail[:size], DTYPES[output["datatype"]]).reshape(output["shape"])
            tail = tail[size:]
    return found


def _flat(data: Any) -> np.ndarray[Any, np.dtype[np.int32]]:
    while data and isinstance(data[0], list):
        data = [number for row in data for number in row]
    return np.array(data, np.int32)
