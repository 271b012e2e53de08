"""A model of a Triton server, or of another that speaks the Open Inference Protocol, as ours does."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferResult
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as pb_grpc

from trainer.grid import Grid
from trainer.teacher.dense import (
    Tensors,
    count_truncated,
    dense_parts,
    dense_query,
    dense_trip_parts,
    dense_trips,
)
from trainer.teacher.endpoint import TOO_OLD, EndpointError, Trouble
from trainer.teacher.places import Place
from trainer.teacher.protocol import Answer, Description, Likelihoods, Limits, Query, TripQuery, joined_trips
from trainer.teacher.security import MAX_MESSAGE_BYTES, Access
from trainer.teacher.split import ENVELOPE_BYTES, split_query, split_trips
from trainer.teacher.status import reporting

TRAINING, BULK = 1, 2  # priorities of the protocol; 1 is the highest
LOG_PROBS = "LOG_PROBS"
OF_TRIPS = ("LOG_LIKELIHOOD", "TOKEN_COUNT")


class TritonEndpoint:
    """One model of one server; asked by the protocol's stub, because the stock client hides a server's pushback."""

    def __init__(self, place: Place, model: str, access: Access | None = None) -> None:
        self._where, self._model, self._access = f"{place}/{model}", model, access or Access()
        self._channel = self._access.channel(place)
        self._stub = pb_grpc.GRPCInferenceServiceStub(self._channel)
        self.description: Description | None = None  # of the teacher that is meant by every request
        self._judges = False  # whether it can be asked about whole trips

    def describe(self, timeout: float, digest: str = "") -> Description:
        """The address names the model, by name or digest."""
        deadline = time.monotonic() + timeout
        with reporting(self._where):
            request = pb.ModelConfigRequest(name=self._model)
            config = self._stub.ModelConfig(request, timeout=timeout, metadata=self._access.metadata()).config
            left = max(deadline - time.monotonic(), 0.1)
            ready = pb.ModelReadyRequest(name=self._model)
            if not self._stub.ModelReady(ready, timeout=left, metadata=self._access.metadata()).ready:
                raise EndpointError(Trouble.LOST, "UNAVAILABLE: it is there, but not ready")
        parameters = {name: value.string_value for name, value in config.parameters.items()}
        self.description = description_of(parameters, self._where)
        self._judges = {output.name for output in config.output}.issuperset(OF_TRIPS)
        return self.description

    def score(self, query: Query, timeout: float) -> Answer:
        teacher = self.description
        assert teacher is not None, "describe comes first"
        room = teacher.limits.message_bytes - ENVELOPE_BYTES
        parts = (part for fits in split_query(query, teacher) for part in dense_parts(fits, room))
        log_probs = np.concatenate([self._score(part, teacher.digest, timeout) for part in parts])
        return Answer(log_probs, count_truncated(query, teacher.block_size))

    def likelihood(self, query: TripQuery, timeout: float) -> Likelihoods:
        teacher = self.description
        assert teacher is not None, "describe comes first"
        if not self._judges:
            raise EndpointError(Trouble.MISTAKE, f"{self._where} {TOO_OLD}")
        room = teacher.limits.message_bytes - ENVELOPE_BYTES
        parts = (part for fits in split_trips(query, teacher) for part in dense_trip_parts(fits, room))
        return joined_trips(self._likelihood(part, teacher, timeout) for part in parts)

    def close(self) -> None:
        self._channel.close()

    def _score(self, query: Query, digest: str, timeout: float) -> NDArray[np.float32]:
        if not len(query.candidates):
            return np.zeros(0, np.float32)
        dense = dense_query(query)
        shapes = {LOG_PROBS: dense.filled.shape}
        answer = self._infer(dense.tensors, shapes, digest, BULK if query.bulk else TRAINING, timeout)
        return answer[LOG_PROBS].astype(np.float32, copy=False)[dense.filled]

    def _likelihood(self, query: TripQuery, teacher: Description, timeout: float) -> Likelihoods:
        shapes = dict.fromkeys(OF_TRIPS, (len(query.lengths), 1))
        answer = self._infer(dense_trips(query), shapes, teacher.digest, BULK, timeout)
        sums, counts = (answer[name][:, 0] for name in OF_TRIPS)
        return Likelihoods(sums, counts.astype(np.int64), int((query.lengths > teacher.block_size - 1).sum()))

    def _infer(
        self, tensors: Tensors, shapes: Mapping[str, tuple[int, ...]], digest: str, priority: int, timeout: float
    ) -> dict[str, NDArray[Any]]:
        """Outputs of these shapes, of the teacher that was described: the request names it."""
        request = _request(self._model, tensors, list(shapes), digest, priority)
        with reporting(self._where):
            reply = self._stub.ModelInfer(request, timeout=timeout, metadata=self._access.metadata())
        # Triton's own answers name no teacher: there the request's digest alone is checked, by the model.
        answered = reply.parameters["digest"].string_param if "digest" in reply.parameters else digest
        found = {name: InferResult(reply).as_numpy(name) for name in shapes}
        got = {name: None if array is None else array.shape for name, array in found.items()}
        if answered != digest or got != shapes:
            raise EndpointError(
                Trouble.OTHER,
                f"{self._where}: asked teacher {digest[:16]} for {shapes}, got {got} from {answered[:16]}",
            )
        return found


def _request(model: str, tensors: Tensors, outputs: Sequence[str], digest: str, priority: int) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model, outputs=[{"name": name} for name in outputs])
    request.parameters["digest"].string_param = digest
    request.parameters["priority"].uint64_param = priority
    for name, tensor in tensors.items():
        request.inputs.add(name=name, datatype="INT32", shape=tensor.shape)
        request.raw_input_contents.append(tensor.astype("<i4").tobytes())
    return request


def description_of(parameters: Mapping[str, str], where: str) -> Description:
    """Who a model's parameters say that it is. Raises EndpointError."""
    try:
        limits = json.loads(parameters["limits"])
        return Description(
            digest=parameters["digest"],
            vocab_size=int(parameters["vocab_size"]),
            cells=int(parameters["cells"]),
            pad=int(parameters["pad"]),
            eot=int(parameters["eot"]),
            sot=int(parameters["sot"]),
            block_size=int(parameters["block_size"]),
            grid=Grid(**json.loads(parameters["grid"])),
            compute_type=parameters["compute_type"],
            limits=Limits(
                sequences=limits["max_sequences"],
                tokens=limits["max_tokens"],
                positions=limits["max_positions"],
                candidates=limits["max_candidates"],
                row_tokens=limits["max_row_tokens"],
                message_bytes=min(limits["max_message_bytes"], MAX_MESSAGE_BYTES),
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        why = f"it has no parameter {error}" if isinstance(error, KeyError) else f"this trainer cannot read it: {error}"
        raise EndpointError(Trouble.MISTAKE, f"{where} is a model, but no teacher: {why}") from None
