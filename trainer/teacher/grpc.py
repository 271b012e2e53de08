"""A teacher behind one or several gRPC endpoints that serve the same artifact."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from types import TracebackType

import grpc
import numpy as np
from grpc_health.v1 import health_pb2 as health
from grpc_health.v1 import health_pb2_grpc as health_grpc
from numpy.typing import NDArray

from protos.teacher.v1 import teacher_pb2 as pb
from protos.teacher.v1 import teacher_pb2_grpc as pb_grpc
from trainer.errors import TeacherMismatch
from trainer.grid import Grid
from trainer.teacher.protocol import Answer, Description, Limits, Query
from trainer.teacher.security import Access
from trainer.teacher.split import split_query
from trainer.teacher.status import FAILOVER, translated

CONNECT_S = 30.0
PROBE_S = 2.0  # how long one endpoint may take to say who it is
RETRY_S = 0.2
MAX_MESSAGE_BYTES = 256 << 20
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)
TOKEN_DTYPES: dict[int, str] = {pb.TOKEN_TYPE_UINT16: "<u2", pb.TOKEN_TYPE_INT32: "<i4"}


class Endpoint:
    """One address, its channel, and what goes with every call."""

    def __init__(self, target: str, access: Access) -> None:
        self.target, self.access = target, access
        self.channel = access.channel(target, CHANNEL_OPTIONS)
        self.stub = pb_grpc.TeacherServiceStub(self.channel)
        self.health = health_grpc.HealthStub(self.channel)


class GrpcTeacher:
    """Asks the endpoints in turn; one that fails is passed over while another one answers."""

    def __init__(
        self,
        targets: Sequence[str],
        *,
        deadline_s: float = 120.0,
        connect_s: float = CONNECT_S,
        access: Access | None = None,
    ) -> None:
        """Connects and reads the description. Raises TeacherUnavailable, TeacherMismatch or BadInput."""
        self._endpoints = [Endpoint(target, access or Access()) for target in targets]
        self._turn = itertools.count()
        self._deadline_s = deadline_s
        try:
            reply = describe_any(self._endpoints, connect_s)
            self._token_dtype = np.dtype(TOKEN_DTYPES[reply.token_type])
            self.description = _description(reply)
            self.description.check()
        except BaseException:
            self.close()
            raise

    def score(self, query: Query) -> Answer:
        answers = [self._score_part(part) for part in split_query(query, self.description)]
        log_probs = np.concatenate([answer.log_probs for answer in answers])
        return Answer(log_probs, sum(answer.truncated for answer in answers))

    def close(self) -> None:
        for endpoint in self._endpoints:
            endpoint.channel.close()

    def __enter__(self) -> GrpcTeacher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _score_part(self, query: Query) -> Answer:
        request = pb.ScoreRequest(
            digest=self.description.digest,
            tokens=query.tokens.astype(self._token_dtype).tobytes(),
            lengths=query.lengths.astype("<u4").tobytes(),
            scored=query.scored.astype("<u4").tobytes(),
            window=query.window,
            candidates=query.candidates.astype(self._token_dtype).tobytes(),
            candidate_counts=query.counts.astype("<u2").tobytes(),
            reply_type=pb.FLOAT_TYPE_FLOAT32,
        )
        reply = self._call(request)
        log_probs: NDArray[np.float32] = np.frombuffer(reply.log_probs, "<f4")
        if reply.digest != self.description.digest or len(log_probs) != len(query.candidates):
            raise TeacherMismatch(
                f"asked teacher {self.description.digest[:16]} for {len(query.candidates)} log-probabilities, "
                f"got {len(log_probs)} from {reply.digest[:16]}"
            )
        return Answer(log_probs, reply.truncated)

    def _call(self, request: pb.ScoreRequest) -> pb.ScoreResponse:
        first = next(self._turn)
        last: grpc.RpcError | None = None
        for attempt in range(len(self._endpoints)):
            endpoint = self._endpoints[(first + attempt) % len(self._endpoints)]
            try:
                return endpoint.stub.Score(request, timeout=self._deadline_s, metadata=endpoint.access.metadata())
            except grpc.RpcError as error:
                if error.code() not in FAILOVER:
                    raise translated(error.code(), error.details(), endpoint.target) from None
                last = error
        assert last is not None  # there is at least one endpoint
        targets = ", ".join(endpoint.target for endpoint in self._endpoints)
        raise translated(last.code(), last.details(), targets) from None


class NotServing(grpc.RpcError):
    """The endpoint answers, but is warming up or draining."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "it is there, but not ready"


def describe_any(endpoints: Sequence[Endpoint], connect_s: float) -> pb.DescribeResponse:
    """What the endpoints that serve say of themselves; they must agree. One that is down may come back later.

    Raises TeacherUnavailable when none serves in time and TeacherMismatch when two differ.
    """
    deadline = time.monotonic() + connect_s
    found: dict[str, pb.DescribeResponse] = {}
    while True:
        failures: dict[str, grpc.RpcError] = {}
        for endpoint in endpoints:
            try:
                found[endpoint.target] = _describe_serving(endpoint)
            except grpc.RpcError as error:
                failures[endpoint.target] = error
        if found or time.monotonic() > deadline or any(e.code() not in FAILOVER for e in failures.values()):
            break
        time.sleep(RETRY_S)
    if not found:
        failure = next(iter(failures.values()))
        raise translated(failure.code(), failure.details(), ", ".join(failures)) from None
    (first, reply), *others = found.items()
    for target, other in others:
        if other.digest != reply.digest:
            raise TeacherMismatch(
                f"endpoints serve different teachers: {first} has {reply.digest[:16]}, {target} has {other.digest[:16]}"
            )
    return reply


def _describe_serving(endpoint: Endpoint) -> pb.DescribeResponse:
    """Describe, once the endpoint says that it serves. Raises RpcError."""
    request = health.HealthCheckRequest(service="teacher.v1.TeacherService")
    status = endpoint.health.Check(request, timeout=PROBE_S).status
    if status != health.HealthCheckResponse.SERVING:
        raise NotServing
    return endpoint.stub.Describe(pb.DescribeRequest(), timeout=PROBE_S, metadata=endpoint.access.metadata())


def _description(reply: pb.DescribeResponse) -> Description:
    g = reply.grid
    return Description(
        digest=reply.digest,
        vocab_size=reply.vocab_size,
        cells=reply.cells,
        pad=reply.pad,
        eot=reply.eot,
        sot=reply.sot,
        block_size=reply.block_size,
        grid=Grid(
            min_lat=g.min_lat,
            max_lat=g.max_lat,
            min_lng=g.min_lng,
            max_lng=g.max_lng,
            cell_lat=g.cell_lat,
            cell_lng=g.cell_lng,
            rows=g.rows,
            columns=g.columns,
            downsample=g.downsample,
            centroid_rule=g.centroid_rule,
        ),
        compute_type=reply.compute_type,
        limits=Limits(
            sequences=reply.limits.max_sequences,
            tokens=reply.limits.max_tokens,
            positions=reply.limits.max_positions,
            candidates=reply.limits.max_candidates,
            row_tokens=reply.limits.max_row_tokens,
            message_bytes=min(reply.limits.max_message_bytes, MAX_MESSAGE_BYTES),
        ),
    )
