"""The Open Inference Protocol over gRPC: inference.GRPCInferenceService, messages <-> arrays and records."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from tritonclient.grpc import service_pb2 as pb

from teacher_server.calls import Calls, take_over_id
from teacher_server.dense import Array
from teacher_server.errors import InvalidRequest
from teacher_server.grpc_status import parsed, service_handler
from teacher_server.models import Models
from teacher_server.offload import offloaded
from teacher_server.oip_service import VERSION, Inference, InferenceModel, Inferred
from teacher_server.oip_tensors import datatype_of, from_bytes, from_numbers

SERVICE_NAME: str = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name


class InferenceMethods:
    """The protocol's methods over a server's models, from and to serialised messages."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def handler(self, calls: Calls) -> grpc.GenericRpcHandler:
        """What a server needs to offer the methods."""
        return service_handler(
            SERVICE_NAME,
            {
                "ServerLive": self._server_live,
                "ServerReady": self._server_ready,
                "ServerMetadata": self._server_metadata,
                "ModelReady": self._model_ready,
                "ModelMetadata": self._model_metadata,
                "ModelConfig": self._model_config,
                "ModelStatistics": self._model_statistics,
                "ModelInfer": self._model_infer,
                "RepositoryIndex": self._repository_index,
            },
            calls,
        )

    async def _server_live(self, data: bytes, remaining: float | None) -> bytes:
        parsed(pb.ServerLiveRequest, data)
        return pb.ServerLiveResponse(live=True).SerializeToString()

    async def _server_ready(self, data: bytes, remaining: float | None) -> bytes:
        parsed(pb.ServerReadyRequest, data)
        return pb.ServerReadyResponse(ready=self._models.ready).SerializeToString()

    async def _server_metadata(self, data: bytes, remaining: float | None) -> bytes:
        parsed(pb.ServerMetadataRequest, data)
        return pb.ServerMetadataResponse(**self._models.server_metadata()).SerializeToString()

    async def _model_ready(self, data: bytes, remaining: float | None) -> bytes:
        model = self._meant(parsed(pb.ModelReadyRequest, data))
        return pb.ModelReadyResponse(ready=model.ready).SerializeToString()

    async def _model_metadata(self, data: bytes, remaining: float | None) -> bytes:
        model = self._meant(parsed(pb.ModelMetadataRequest, data))
        return ParseDict(model.metadata(), pb.ModelMetadataResponse()).SerializeToString()

    async def _model_config(self, data: bytes, remaining: float | None) -> bytes:
        model = self._meant(parsed(pb.ModelConfigRequest, data))
        return ParseDict({"config": model.config()}, pb.ModelConfigResponse()).SerializeToString()

    async def _model_statistics(self, data: bytes, remaining: float | None) -> bytes:
        request = parsed(pb.ModelStatisticsRequest, data)
        chosen = [self._meant(request)] if request.name or request.version else []  # neither: all models
        return ParseDict(self._models.statistics(*chosen), pb.ModelStatisticsResponse()).SerializeToString()

    async def _model_infer(self, data: bytes, remaining: float | None) -> bytes:
        with self._models.reading():
            message = parsed(pb.ModelInferRequest, data)
            take_over_id(message.id)
            model = self._models.named(message.model_name, message.model_version)
        with model.service.reading():
            request = await offloaded(len(data), _read, message)
        answer = await model.infer(request, remaining)
        return _written(message, answer).SerializeToString()

    async def _repository_index(self, data: bytes, remaining: float | None) -> bytes:
        ready_only = parsed(pb.RepositoryIndexRequest, data).ready
        models = [each for each in self._models.index() if each["state"] == "READY" or not ready_only]
        return ParseDict({"models": models}, pb.RepositoryIndexResponse()).SerializeToString()

    def _meant(self, request: Any) -> InferenceModel:
        return self._models.named(request.name, request.version)


def _read(message: pb.ModelInferRequest) -> Inference:
    return Inference(
        inputs=_arrays(message),
        parameters={name: _value(name, parameter) for name, parameter in message.parameters.items()},
        outputs=tuple(_plain(output, "output").name for output in message.outputs),
    )


def _arrays(message: pb.ModelInferRequest) -> dict[str, Array]:
    """The inputs by name, all of them raw or all of them typed. Raises InvalidRequest."""
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise InvalidRequest(f"raw_input_contents has {len(raw)} entries for {len(message.inputs)} inputs")
    arrays: dict[str, Array] = {}
    for place, tensor in enumerate(message.inputs):
        declared = (_plain(tensor, "input").name, tensor.datatype, tensor.shape)
        if tensor.name in arrays:
            raise InvalidRequest(f"input {tensor.name} is there twice")
        if raw and tensor.HasField("contents"):
            raise InvalidRequest(f"input {tensor.name} has typed contents beside raw_input_contents: use one of them")
        arrays[tensor.name] = (
            from_bytes(*declared, raw[place]) if raw else from_numbers(*declared, tensor.contents.int_contents)
        )
    return arrays


def _plain(tensor: Any, kind: str) -> Any:
    """The tensor, if it asks for nothing special such as shared memory or classification."""
    for name in tensor.parameters:
        raise InvalidRequest(f"{kind} {tensor.name}: the parameter {name!r} is not supported")
    return tensor


def _value(name: str, parameter: pb.InferParameter) -> object:
    choice = parameter.WhichOneof("parameter_choice")
    if choice is None:
        raise InvalidRequest(f"parameter {name} has no value")
    return getattr(parameter, choice)


def _written(message: pb.ModelInferRequest, answer: Inferred) -> pb.ModelInferResponse:
    """The answer; its numbers are raw, which is all that stock clients read."""
    response = pb.ModelInferResponse(
        model_name=message.model_name,
        model_version=VERSION,
        id=message.id,
        outputs=[
            {"name": name, "datatype": datatype_of(array), "shape": array.shape}
            for name, array in answer.outputs.items()
        ],
        raw_output_contents=[array.tobytes() for array in answer.outputs.values()],
    )
    for name, value in answer.parameters.items():
        kind = "string_param" if isinstance(value, str) else "int64_param"
        setattr(response.parameters[name], kind, value)
    return response
