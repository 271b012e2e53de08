"""Ask a served teacher from the command line: who are you, and how likely are these candidates?"""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from protos.teacher.v1 import teacher_pb2 as pb
from protos.teacher.v1 import teacher_pb2_grpc
from teacher_server.channel import ClientFiles
from teacher_server.errors import BadSettings, EngineFailure, InvalidRequest, TeacherError
from teacher_server.grpc_api import TOKEN_DTYPES
from teacher_server.grpc_status import STATUS_OF

TIMEOUT = 60.0  # seconds for one answer
PLAIN = ClientFiles()

_ERROR_OF: dict[grpc.StatusCode, type[TeacherError]] = {code: error for error, code in STATUS_OF.items()}


def describe_address(address: str, files: ClientFiles = PLAIN) -> dict[str, Any]:
    """What the teacher at `address` says of itself: the fields of DescribeResponse, by their proto names.

    Addresses: see `ClientFiles.channel`. Raises BadSettings when nobody answers there.
    """
    response = _called(address, files, "Describe", pb.DescribeRequest())
    described: dict[str, Any] = MessageToDict(
        response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    described["limits"]["max_message_bytes"] = int(described["limits"]["max_message_bytes"])  # JSON has no uint64
    return described


def score_address(address: str, request: object, files: ClientFiles = PLAIN) -> dict[str, Any]:
    """Log-probabilities for a request written in JSON.

    `request`: {"histories": [[cell, ...], ...], "candidates": [[[cell, ...] per scored position] per history],
    "window": 0, "digest": ""}; the positions scored are the last ones of each history, as many as it has lists of
    candidates. Returns {"log_probs": shaped as the candidates, "digest", "queue_us", "compute_us", "truncated"}.
    Raises InvalidRequest for a malformed request, and what the teacher answers.
    """
    histories, candidates, window, digest = _read(request)
    described = _called(address, files, "Describe", pb.DescribeRequest())
    dtype = TOKEN_DTYPES[described.token_type]
    positions = [cells for history in candidates for cells in history]
    message = pb.ScoreRequest(
        digest=digest,
        tokens=_packed("histories", [cell for history in histories for cell in history], dtype),
        lengths=_packed("histories", [len(history) for history in histories], np.dtype("<u4")),
        scored=_packed("candidates", [len(history) for history in candidates], np.dtype("<u4")),
        window=window,
        candidates=_packed("candidates", [cell for cells in positions for cell in cells], dtype),
        candidate_counts=_packed("candidates", [len(cells) for cells in positions], np.dtype("<u2")),
    )
    response = _called(address, files, "Score", message)
    flat = iter(np.frombuffer(response.log_probs, "<f4").tolist())
    return {
        "log_probs": [[[next(flat) for _ in cells] for cells in history] for history in candidates],
        "digest": response.digest,
        "queue_us": response.queue_us,
        "compute_us": response.compute_us,
        "truncated": response.truncated,
    }


def _called(address: str, files: ClientFiles, method: str, request: Message) -> Any:
    """One call, with the teacher's error raised as the class that it stands for."""
    metadata = files.metadata()
    with files.channel(address) as channel:
        try:
            stub = teacher_pb2_grpc.TeacherServiceStub(channel)
            return getattr(stub, method)(request, timeout=TIMEOUT, metadata=metadata)
        except grpc.RpcError as error:
            raise _translated(address, error.code(), error.details()) from None


def _translated(address: str, code: grpc.StatusCode, details: str) -> TeacherError:
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED):
        return BadSettings(f"no teacher answers at {address}: {details}")
    return _ERROR_OF.get(code, EngineFailure)(details)


def _read(request: object) -> tuple[list[list[int]], list[list[list[int]]], int, str]:
    """The request's fields, their JSON types checked."""
    if not isinstance(request, dict):
        raise InvalidRequest('the request must be a JSON object with "histories" and "candidates"')
    unknown = request.keys() - {"histories", "candidates", "window", "digest"}
    if unknown:
        raise InvalidRequest(f"unknown field {min(unknown)!r}: use histories, candidates, window, digest")
    histories, candidates = request.get("histories"), request.get("candidates")
    window, digest = request.get("window", 0), request.get("digest", "")
    if not _nested(histories, 2):
        raise InvalidRequest("histories must be a list of lists of cells")
    if not _nested(candidates, 3):
        raise InvalidRequest("candidates must be a list, per history, of lists, per scored position, of cells")
    if type(window) is not int or not 0 <= window < 2**32:
        raise InvalidRequest(f"window must be a whole number, 0 or more, got {window!r}")
    if not isinstance(digest, str):
        raise InvalidRequest(f"digest must be a string, got {digest!r}")
    return histories, candidates, window, digest  # type: ignore[return-value]


def _nested(value: object, depth: int) -> bool:
    if depth == 0:
        return type(value) is int
    return isinstance(value, list) and all(_nested(item, depth - 1) for item in value)


def _packed(name: str, values: list[int], dtype: np.dtype[Any]) -> bytes:
    limits = np.iinfo(dtype)
    for value in values:
        if not limits.min <= value <= limits.max:
            raise InvalidRequest(f"{name}: {value} does not fit the wire's {dtype.name}")
    return np.array(values, dtype).tobytes()
