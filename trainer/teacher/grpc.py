"""A teacher behind one gRPC address, in its own protocol."""

from __future__ import annotations

import time

import numpy as np
from grpc_health.v1 import health_pb2 as health
from grpc_health.v1 import health_pb2_grpc as health_grpc

from protos.teacher.v1 import teacher_pb2 as pb
from protos.teacher.v1 import teacher_pb2_grpc as pb_grpc
from trainer.grid import Grid
from trainer.teacher.endpoint import TOO_OLD, EndpointError, Trouble
from trainer.teacher.places import Place
from trainer.teacher.protocol import (
    Answer,
    Description,
    Likelihoods,
    Limits,
    Query,
    TripQuery,
    joined,
    joined_trips,
)
from trainer.teacher.security import MAX_MESSAGE_BYTES, Access
from trainer.teacher.split import split_query, split_trips
from trainer.teacher.status import reporting

TOKEN_DTYPES: dict[int, str] = {pb.TOKEN_TYPE_UINT16: "<u2", pb.TOKEN_TYPE_INT32: "<i4"}


class GrpcEndpoint:
    """One address, its channel, and what goes with every call."""

    def __init__(self, place: Place, access: Access | None = None) -> None:
        self._where, self._access = str(place), access or Access()
        self._channel = self._access.channel(place)
        self._stub = pb_grpc.TeacherServiceStub(self._channel)
        self._health = health_grpc.HealthStub(self._channel)
        self.description: Description | None = None  # of the teacher that is meant by every request

    def describe(self, timeout: float, digest: str = "") -> Description:
        deadline = time.monotonic() + timeout
        asked = health.HealthCheckRequest(service="teacher.v1.TeacherService")
        with reporting(self._where):
            status = self._health.Check(asked, timeout=timeout).status
        if status != health.HealthCheckResponse.SERVING:
            raise EndpointError(Trouble.LOST, "UNAVAILABLE: it is there, but not ready")
        left = max(deadline - time.monotonic(), 0.1)
        with reporting(self._where):
            request = pb.DescribeRequest(digest=digest)
            reply = self._stub.Describe(request, timeout=left, metadata=self._access.metadata())
        if reply.token_type not in TOKEN_DTYPES:
            raise EndpointError(Trouble.MISTAKE, f"{self._where} has tokens of an unknown type ({reply.token_type})")
        self._token_dtype = np.dtype(TOKEN_DTYPES[reply.token_type])
        self.description = _description(reply)
        return self.description

    def score(self, query: Query, timeout: float) -> Answer:
        teacher = self.description
        assert teacher is not None, "describe comes first"
        return joined(self._score(part, teacher.digest, timeout) for part in split_query(query, teacher))

    def likelihood(self, query: TripQuery, timeout: float) -> Likelihoods:
        teacher = self.description
        assert teacher is not None, "describe comes first"
        return joined_trips(self._likelihood(part, teacher.digest, timeout) for part in split_trips(query, teacher))

    def close(self) -> None:
        self._channel.close()

    def _score(self, query: Query, digest: str, timeout: float) -> Answer:
        request = pb.ScoreRequest(
            digest=digest,
            tokens=query.tokens.astype(self._token_dtype).tobytes(),
            lengths=query.lengths.astype("<u4").tobytes(),
            scored=query.scored.astype("<u4").tobytes(),
            window=query.window,
            candidates=query.candidates.astype(self._token_dtype).tobytes(),
            candidate_counts=query.counts.astype("<u2").tobytes(),
            reply_type=pb.FLOAT_TYPE_FLOAT32,
            priority=pb.PRIORITY_BULK if query.bulk else pb.PRIORITY_TRAINING,
        )
        with reporting(self._where):
            reply = self._stub.Score(request, timeout=timeout, metadata=self._access.metadata())
        log_probs = np.frombuffer(reply.log_probs, "<f4")
        if reply.digest != digest or len(log_probs) != len(query.candidates):
            raise EndpointError(
                Trouble.OTHER,
                f"{self._where}: asked teacher {digest[:16]} for {len(query.candidates)} log-probabilities, "
                f"got {len(log_probs)} from {reply.digest[:16]}",
            )
        return Answer(log_probs, reply.truncated)

    def _likelihood(self, query: TripQuery, digest: str, timeout: float) -> Likelihoods:
        request = pb.LikelihoodRequest(
            digest=digest,
            tokens=query.tokens.astype(self._token_dtype).tobytes(),
            lengths=query.lengths.astype("<u4").tobytes(),
            priority=pb.PRIORITY_BULK,
        )
        with reporting(self._where, TOO_OLD):
            reply = self._stub.Likelihood(request, timeout=timeout, metadata=self._access.metadata())
        sums = np.frombuffer(reply.log_likelihoods, "<f8")
        counts = np.frombuffer(reply.token_counts, "<u4").astype(np.int64)
        if reply.digest != digest or not len(sums) == len(counts) == len(query.lengths):
            raise EndpointError(
                Trouble.OTHER,
                f"{self._where}: asked teacher {digest[:16]} about {len(query.lengths)} trips, "
                f"got {len(sums)} from {reply.digest[:16]}",
            )
        return Likelihoods(sums, counts, reply.truncated)


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
