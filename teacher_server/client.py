"""Ask a served teacher from the command line: who are you, how likely are these candidates, these whole trips?"""

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
TOLD = ("digest", "queue_us", "compute_us", "truncated")  # by every answer

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
    described = _called(address, files, "Describe", pb.DescribeRequest(digest=digest))
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
        **{name: getattr(response, name) for name in TOLD},
    }


def judge_address(address: str, request: object, files: ClientFiles = PLAIN) -> dict[str, Any]:
    """How probable whole trips are, for a request written in JSON: {"trips": [[cell, ...], ...], "digest": ""}.

    Returns {"log_likelihoods": [...], "token_counts": [...], "anomaly_scores": [...], "digest", "queue_us",
    "compute_us", "truncated"}: a number for each trip. Raises as `score_address`.
    """
    fields = _fields(request, "trips", "digest")
    trips = fields["trips"]
    if not _nested(trips, 2):
        raise InvalidRequest("trips must be a list of lists of cells")
    described = _called(address, files, "Describe", pb.DescribeRequest(digest=fields["digest"]))
    message = pb.LikelihoodRequest(
        digest=fields["digest"],
        tokens=_packed("trips", [cell for trip in trips for cell in trip], TOKEN_DTYPES[described.token_type]),
        lengths=_packed("trips", [len(trip) for trip in trips], np.dtype("<u4")),
    )
    response = _called(address, files, "Likelihood", message)
    sums, counts = np.frombuffer(response.log_likelihoods, "<f8"), np.frombuffer(response.token_counts, "<u4")
    return {
        "log_likelihoods": sums.tolist(),
        "token_counts": counts.tolist(),
        "anomaly_scores": (-sums / counts).tolist(),
        **{name: getattr(response, name) for name in TOLD},
    }


def _called(address: str, files: ClientFiles, method: str, request: Message) -> Any:
    """One call, with the teacher's error raised as the class that it stands for."""
    metadata = files.metadata()
    with files.channel(address) as channel:
        try:
            stub = teacher_pb2_grpc.TeacherServiceStub(channel)
            return getattr(stub, method)(request, timeout=TIMEOUT, metadata=metadata)
        except grpc.RpcError as error:
            if method == "Likelihood" and error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise BadSettings(f"the server at {address} is too old to judge whole trips: update it") from None
            raise _translated(address, error.code(), error.details()) from None


def _translated(address: str, code: grpc.StatusCode, details: str) -> TeacherError:
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED):
        return BadSettings(f"no teacher answers at {address}: {details}")
    return _ERROR_OF.get(code, EngineFailure)(details)


def _read(request: object) -> tuple[list[list[int]], list[list[list[int]]], int, str]:
    """The request's fields, their JSON types checked."""
    fields = _fields(request, "histories", "candidates", "window", "digest")
    histories, candidates, window = fields["histories"], fields["candidates"], fields.get("window", 0)
    if not _nested(histories, 2):
        raise InvalidRequest("histories must be a list of lists of cells")
    if not _nested(candidates, 3):
        raise InvalidRequest("candidates must be a list, per history, of lists, per scored position, of cells")
    if type(window) is not int or not 0 <= window < 2**32:
        raise InvalidRequest(f"window must be a whole number, 0 or more, got {window!r}")
    return histories, candidates, window, fields["digest"]


def _fields(request: object, *known: str) -> dict[str, Any]:
    """The fields of a request, None for those that are not there; their names and the digest are checked."""
    if not isinstance(request, dict):
        raise InvalidRequest('the request must be a JSON object with "histories" and "candidates", or with "trips"')
    unknown = request.keys() - set(known)
    if unknown:
        raise InvalidRequest(f"unknown field {min(unknown)!r}: use {', '.join(known)}")
    digest = request.get("digest", "")
    if not isinstance(digest, str):
        raise InvalidRequest(f"digest must be a string, got {digest!r}")
    return {"histories": None, "candidates": None, "trips": None, **request, "digest": digest}


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
