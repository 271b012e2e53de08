"""The doors that a load can come through: native gRPC, and the Open Inference Protocol over gRPC or HTTP."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import cycle
from typing import Any, Protocol

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as oip

from protos.teacher.v1 import teacher_pb2 as pb
from teacher_server.dense import LOG_LIKELIHOOD, LOG_PROBS, TOKEN_COUNT
from teacher_server.errors import BadSettings
from teacher_server.grpc_api import SERVICE_NAME, TOKEN_DTYPES
from teacher_server.loadgen.walks import Walks
from teacher_server.oip_api import SERVICE_NAME as OIP_SERVICE_NAME

Extent = tuple[int, int]  # rows and columns of the teacher's grid
Metadata = tuple[tuple[str, str], ...]
Times = tuple[int, int]  # microseconds that the server says a request waited and was computed
OPENING_SECONDS = 10.0


class Refused(Exception):
    """A request without an answer; `status` is the protocol's word for why."""

    def __init__(self, status: str, details: str) -> None:
        super().__init__(details)
        self.status = status


class Door(Protocol):
    """One protocol to one server."""

    async def extent(self) -> Extent:
        """Ask for the teacher's grid. Raises Refused."""
        ...

    def message(self, walks: Walks) -> bytes:
        """A request about every step of the walks, or about whole walks."""
        ...

    async def ask(self, message: bytes, timeout: float) -> Times:
        """Send it and wait for the answer. Raises Refused."""
        ...

    async def close(self) -> None: ...


class _GrpcDoor:
    """Calls of bytes over several connections, so that no limit on the streams of one is in the way."""

    def __init__(self, channels: Sequence[grpc.aio.Channel], metadata: Metadata, method: str) -> None:
        self._channels, self._metadata = channels, metadata
        self._calls = cycle([channel.unary_unary(method) for channel in channels])

    async def ask(self, message: bytes, timeout: float) -> Times:
        return self._times(await self._called(next(self._calls), message, timeout))

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()

    def _times(self, answer: bytes) -> Times:
        raise NotImplementedError

    async def _first_called(self, method: str, message: bytes) -> bytes:
        return await self._called(self._channels[0].unary_unary(method), message, OPENING_SECONDS)

    async def _called(self, call: Any, message: bytes, timeout: float) -> bytes:
        try:
            answer: bytes = await call(message, timeout=timeout, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise Refused(error.code().name, error.details() or "") from None
        return answer


class NativeDoor(_GrpcDoor):
    """teacher.v1.TeacherService."""

    def __init__(self, channels: Sequence[grpc.aio.Channel], metadata: Metadata, whole: bool = False) -> None:
        """`whole`: the walks are asked about as wholes."""
        super().__init__(channels, metadata, f"/{SERVICE_NAME}/{'Likelihood' if whole else 'Score'}")
        self._response = pb.LikelihoodResponse if whole else pb.ScoreResponse
        self._dtype = np.dtype("<i4")

    async def extent(self) -> Extent:
        answer = await self._first_called(f"/{SERVICE_NAME}/Describe", b"")
        described = pb.DescribeResponse.FromString(answer)
        self._dtype = TOKEN_DTYPES[described.token_type]
        return described.grid.rows, described.grid.columns

    def message(self, walks: Walks) -> bytes:
        shape = walks.shape
        tokens = walks.tokens.astype(self._dtype).tobytes()
        steps = np.full(shape.trips, shape.steps, "<u4").tobytes()
        if shape.whole:
            return pb.LikelihoodRequest(tokens=tokens, lengths=steps).SerializeToString()
        return pb.ScoreRequest(
            tokens=tokens,
            lengths=steps,
            scored=steps,
            window=shape.window,
            candidates=walks.candidates.astype(self._dtype).tobytes(),
            candidate_counts=np.full(shape.positions, shape.candidates, "<u2").tobytes(),
        ).SerializeToString()

    def _times(self, answer: bytes) -> Times:
        response = self._response.FromString(answer)
        return response.queue_us, response.compute_us


class InferenceDoor(_GrpcDoor):
    """inference.GRPCInferenceService: this server, or a Triton server that holds a teacher."""

    def __init__(self, channels: Sequence[grpc.aio.Channel], metadata: Metadata, model: str) -> None:
        super().__init__(channels, metadata, f"/{OIP_SERVICE_NAME}/ModelInfer")
        self._model = model

    async def extent(self) -> Extent:
        asked = oip.ModelConfigRequest(name=self._model).SerializeToString()
        answer = await self._first_called(f"/{OIP_SERVICE_NAME}/ModelConfig", asked)
        parameters = oip.ModelConfigResponse.FromString(answer).config.parameters
        return extent_of(parameters["grid"].string_value)

    def message(self, walks: Walks) -> bytes:
        message = oip.ModelInferRequest(model_name=self._model, outputs=[{"name": o} for o in outputs_of(walks)])
        for name, array in tensors_of(walks).items():
            message.inputs.add(name=name, datatype="INT32", shape=array.shape)
            message.raw_input_contents.append(array.tobytes())
        return bytes(message.SerializeToString())

    def _times(self, answer: bytes) -> Times:
        told = oip.ModelInferResponse.FromString(answer).parameters
        return told["queue_us"].int64_param, told["compute_us"].int64_param


def tensors_of(walks: Walks) -> dict[str, np.ndarray[Any, np.dtype[np.int32]]]:
    """The dense form of a request (dense.py)."""
    shape = walks.shape
    trips = (shape.trips, 1)
    whole = {"HISTORY": walks.tokens, "HISTORY_LENGTH": np.full(trips, shape.steps, "<i4")}
    if shape.whole:
        return whole
    return {
        **whole,
        "SCORED": np.full(trips, shape.steps, "<i4"),
        "WINDOW": np.full(trips, shape.window, "<i4"),
        "CANDIDATES": walks.candidates,
        "CANDIDATE_COUNT": np.full((shape.trips, shape.steps), shape.candidates, "<i4"),
    }


def outputs_of(walks: Walks) -> list[str]:
    """The outputs that are wanted."""
    return [LOG_LIKELIHOOD.name, TOKEN_COUNT.name] if walks.shape.whole else [LOG_PROBS.name]


def extent_of(grid: str) -> Extent:
    """From the model's parameter `grid`. Raises BadSettings if the model has none."""
    try:
        known = json.loads(grid)
        return int(known["rows"]), int(known["columns"])
    except (ValueError, KeyError, TypeError):
        raise BadSettings("the model does not tell its grid: is it a teacher?") from None
