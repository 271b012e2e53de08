"""The gRPC door: teacher.v1.TeacherService (bytes <-> arrays), the Open Inference Protocol, health, reflection."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from numpy.typing import NDArray

from protos.teacher.v1 import teacher_pb2 as pb
from teacher_server import __version__, oip_api
from teacher_server.addresses import Address, TcpAddress, check_free
from teacher_server.batcher import Priority
from teacher_server.calls import Calls
from teacher_server.errors import BadSettings, InvalidRequest
from teacher_server.grpc_connection import connection_options
from teacher_server.grpc_status import parsed, service_handler
from teacher_server.limits import Connections, Limits
from teacher_server.models import Models
from teacher_server.rows import Floats, ScoreWork
from teacher_server.security import Access, TokenInterceptor
from teacher_server.service import Service
from teacher_server.trips import TripWork

SERVICE_NAME = "teacher.v1.TeacherService"
TOKEN_DTYPES: dict[int, np.dtype[Any]] = {
    pb.TOKEN_TYPE_UINT16: np.dtype("<u2"),
    pb.TOKEN_TYPE_INT32: np.dtype("<i4"),
}


def token_type_of(vocab_size: int) -> pb.TokenType:
    """How tokens travel: two bytes where they fit."""
    return pb.TOKEN_TYPE_UINT16 if vocab_size <= 65_536 else pb.TOKEN_TYPE_INT32


class TeacherMethods:
    """Describe, Score and Likelihood over a server's models, from and to serialised messages."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def handler(self, calls: Calls) -> grpc.GenericRpcHandler:
        """What a server needs to offer the methods."""
        methods = {"Describe": self._describe, "Score": self._score, "Likelihood": self._likelihood}
        return service_handler(SERVICE_NAME, methods, calls)

    async def _describe(self, data: bytes, remaining: float | None) -> bytes:
        with self._models.reading():  # a refusal counts, an answer does not: nothing was computed for it
            request = parsed(pb.DescribeRequest, data)
            service = self._models.meant(request.model, request.digest).service
        description = service.description
        return pb.DescribeResponse(
            digest=description.digest,
            vocab_size=description.model.vocab_size,
            cells=description.grid.cells,
            **asdict(description.special),
            block_size=description.model.block_size,
            grid=pb.Grid(**asdict(description.grid)),
            token_type=token_type_of(description.model.vocab_size),
            compute_type=service.compute_type,
            limits=pb.Limits(**asdict(service.limits)),
            server_version=__version__,
        ).SerializeToString()

    async def _score(self, data: bytes, remaining: float | None) -> bytes:
        with self._models.reading():
            request = parsed(pb.ScoreRequest, data)
            service = self._models.meant(request.model, request.digest).service
        with service.reading():
            reply_type = request.reply_type or pb.FLOAT_TYPE_FLOAT32
            if reply_type not in (pb.FLOAT_TYPE_FLOAT32, pb.FLOAT_TYPE_FLOAT16):
                raise InvalidRequest(f"reply_type is {reply_type}: use 1 (float32) or 2 (float16)")
            priority = _priority(request.priority)
            work = _work(request, _token_dtype(service))
        scores = await service.score(work, request.digest, priority=priority, timeout=remaining)
        return pb.ScoreResponse(
            log_probs=_encoded(scores.log_probs, reply_type),
            reply_type=reply_type,
            digest=scores.digest,
            queue_us=scores.queue_us,
            compute_us=scores.compute_us,
            truncated=scores.truncated,
        ).SerializeToString()

    async def _likelihood(self, data: bytes, remaining: float | None) -> bytes:
        with self._models.reading():
            request = parsed(pb.LikelihoodRequest, data)
            service = self._models.meant(request.model, request.digest).service
        with service.reading():
            priority = _priority(request.priority)
            trips = TripWork(
                tokens=_decoded("tokens", request.tokens, _token_dtype(service)).astype(np.int32),
                lengths=_decoded("lengths", request.lengths, np.dtype("<u4")).astype(np.int64),
            )
        found = await service.likelihood(trips, request.digest, priority=priority, timeout=remaining)
        return pb.LikelihoodResponse(
            log_likelihoods=found.log_likelihoods.astype("<f8").tobytes(),
            token_counts=found.token_counts.astype("<u4").tobytes(),
            digest=found.digest,
            queue_us=found.queue_us,
            compute_us=found.compute_us,
            truncated=found.truncated,
        ).SerializeToString()


def _work(request: pb.ScoreRequest, token_dtype: np.dtype[Any]) -> ScoreWork:
    """The request's arrays. Raises InvalidRequest for bytes that are no whole number of entries."""
    lengths = _decoded("lengths", request.lengths, np.dtype("<u4")).astype(np.int64)
    return ScoreWork(
        tokens=_decoded("tokens", request.tokens, token_dtype).astype(np.int32),
        lengths=lengths,
        scored=_decoded("scored", request.scored, np.dtype("<u4")).astype(np.int64),
        windows=np.full(len(lengths), request.window, np.int64),
        candidates=_decoded("candidates", request.candidates, token_dtype).astype(np.int32),
        candidate_counts=_decoded("candidate_counts", request.candidate_counts, np.dtype("<u2")).astype(np.int64),
    )


def _token_dtype(service: Service) -> np.dtype[Any]:
    return TOKEN_DTYPES[token_type_of(service.description.model.vocab_size)]


def _priority(value: int) -> Priority:
    try:
        return Priority(value)
    except ValueError:
        raise InvalidRequest(f"priority is {value}: use 0 (training) or 1 (bulk)") from None


def _decoded(name: str, data: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    if len(data) % dtype.itemsize:
        raise InvalidRequest(f"{name} has {len(data)} bytes, not a multiple of {dtype.itemsize} ({dtype.name})")
    return np.frombuffer(data, dtype)


def _encoded(log_probs: Floats, reply_type: pb.FloatType) -> bytes:
    if reply_type == pb.FLOAT_TYPE_FLOAT16:
        lowest = np.finfo(np.float16).min  # a log-probability below it is sent as it, never as -inf
        return np.maximum(log_probs, lowest).astype("<f2").tobytes()
    return log_probs.astype("<f4", copy=False).tobytes()


@dataclass
class GrpcDoor:
    """The gRPC server of some models, bound to all its addresses. Make and use it inside one event loop."""

    models: Models
    connections: Connections = field(default_factory=Connections)
    access: Access = field(default_factory=Access)
    calls: Calls = field(default_factory=Calls)
    max_message_bytes: int = Limits.max_message_bytes
    _health: health.aio.HealthServicer = field(default_factory=health.aio.HealthServicer, init=False)
    _server: grpc.aio.Server = field(init=False)
    _told: set[str] = field(default_factory=set, init=False)  # names that health knows
    _socket_files: list[Path] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        tokens = self.access.tokens
        interceptors = [TokenInterceptor(tokens, self.models.reading)] if tokens else []
        options = connection_options(self.connections, self.max_message_bytes)
        self._server = grpc.aio.server(interceptors=interceptors, options=options)
        self._server.add_generic_rpc_handlers(
            (
                TeacherMethods(self.models).handler(self.calls),
                oip_api.InferenceMethods(self.models).handler(self.calls),
            )
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE_NAME, oip_api.SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    def bind(self, address: Address) -> Address:
        """Listen there; returns the address with the port that was bound. Raises BadSettings."""
        check_free(address)
        try:
            if self.access.tls and isinstance(address, TcpAddress):
                port = self._server.add_secure_port(str(address), self.access.tls.grpc_credentials())
            else:
                port = self._server.add_insecure_port(str(address))
        except RuntimeError as error:
            raise BadSettings(f"cannot listen on {address}: {error}") from None
        if isinstance(address, TcpAddress):
            return TcpAddress(address.host, port)
        self._socket_files.append(address.path)
        return address

    async def start(self) -> None:
        """Answer."""
        await self.tell_health()
        await self._server.start()

    async def tell_health(self) -> None:
        """Make grpc.health.v1 say how it is now: the server (''), its services, each model by name and by digest."""
        ready = dict.fromkeys(("", SERVICE_NAME, oip_api.SERVICE_NAME), self.models.ready)
        ready |= dict.fromkeys(self.models.broken, False)
        ready |= {name: model.ready for model in self.models for name in (model.digest, model.name)}
        kinds = health_pb2.HealthCheckResponse
        for name in self._told - ready.keys():
            await self._health.set(name, kinds.SERVICE_UNKNOWN)
        for name, serving in ready.items():
            await self._health.set(name, kinds.SERVING if serving else kinds.NOT_SERVING)
        self._told = set(ready)

    async def stop(self, grace: float) -> None:
        """Close the ports, let calls that are being answered end within `grace` seconds, remove socket files."""
        await self._server.stop(grace)
        for path in self._socket_files:
            path.unlink(missing_ok=True)
