"""A teacher behind one or several gRPC endpoints that serve the same artifact."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import TracebackType

import grpc
import numpy as np
from numpy.typing import NDArray

from protos.teacher.v1 import teacher_pb2 as pb
from protos.teacher.v1 import teacher_pb2_grpc as pb_grpc
from trainer.errors import BadInput, TeacherMismatch, TeacherUnavailable, TrainerError
from trainer.grid import Grid
from trainer.teacher.protocol import Answer, Description, Limits, Query
from trainer.teacher.split import split_query

CONNECT_S = 30.0
MAX_MESSAGE_BYTES = 256 << 20
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)
TOKEN_DTYPES: dict[int, str] = {pb.TOKEN_TYPE_UINT16: "<u2", pb.TOKEN_TYPE_INT32: "<i4"}
FAILOVER = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


class _Endpoint:
    """One address and its channel."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.channel = grpc.insecure_channel(target, options=CHANNEL_OPTIONS)
        self.stub = pb_grpc.TeacherServiceStub(self.channel)


class GrpcTeacher:
    """Asks the endpoints in turn; one that fails is passed over while another one answers."""

    def __init__(self, targets: Sequence[str], *, deadline_s: float = 120.0, connect_s: float = CONNECT_S) -> None:
        """Connects and reads the description. Raises TeacherUnavailable, TeacherMismatch or BadInput."""
        self._endpoints = [_Endpoint(target) for target in targets]
        self._turn = itertools.count()
        self._deadline_s = deadline_s
        replies = [self._describe(endpoint, connect_s) for endpoint in self._endpoints]
        for endpoint, reply in zip(self._endpoints, replies, strict=True):
            if reply.digest != replies[0].digest:
                raise TeacherMismatch(
                    f"endpoints serve different teachers: {targets[0]} has {replies[0].digest[:16]}, "
                    f"{endpoint.target} has {reply.digest[:16]}"
                )
        self._token_dtype = np.dtype(TOKEN_DTYPES[replies[0].token_type])
        self.description = _description(replies[0])
        self.description.check()

    def score(self, query: Query) -> Answer:
        answers = [self._score_part(part) for part in split_query(query, self.description.limits)]
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

    def _describe(self, endpoint: _Endpoint, connect_s: float) -> pb.DescribeResponse:
        try:
            return endpoint.stub.Describe(pb.DescribeRequest(), timeout=connect_s, wait_for_ready=True)
        except grpc.RpcError as error:
            raise _translated(error, endpoint.target) from None

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
                return endpoint.stub.Score(request, timeout=self._deadline_s)
            except grpc.RpcError as error:
                if error.code() not in FAILOVER:
                    raise _translated(error, endpoint.target) from None
                last = error
        assert last is not None  # there is at least one endpoint
        raise _translated(last, ", ".join(endpoint.target for endpoint in self._endpoints)) from None


def _translated(error: grpc.RpcError, target: str) -> TrainerError:
    """The trainer's error for a gRPC status."""
    code, details = error.code(), error.details()
    if code in FAILOVER:
        return TeacherUnavailable(f"no teacher answers at {target} ({code.name}: {details})")
    if code == grpc.StatusCode.FAILED_PRECONDITION:
        return TeacherMismatch(f"{target}: {details}")
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return BadInput(f"{target} is a gRPC server, but no teacher ({details})")
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        return BadInput(f"{target} refused the request: {details}")
    return TeacherUnavailable(f"the teacher at {target} failed ({code.name}: {details})")


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
        ),
    )
