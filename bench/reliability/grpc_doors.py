"""Fuzz of the two gRPC services: their messages as bytes."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as oip

from bench.reliability.dense import dense_answer, dense_question, numbers_of
from bench.reliability.doors import CALLERS_FAULTS, Answer, Numbers, Senseless
from bench.reliability.mutations import spoilt_bytes
from bench.reliability.oracle import Oracle
from bench.served import message_of
from protos.teacher.v1 import teacher_pb2 as pb
from teacher_server.errors import InvalidRequest
from teacher_server.grpc_status import STATUS_OF
from teacher_server.rows import ScoreWork
from teacher_server.trips import TripWork
from tests.teacher_server.dense_clients import infer_message, outputs_in


class GrpcDoor(ABC):
    """One method of one service."""

    name: str
    method: str
    refusals = frozenset(STATUS_OF[error].name for error in CALLERS_FAULTS)
    senseless = STATUS_OF[InvalidRequest].name

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call = channel.unary_unary(self.method)

    def spoilt(self, request: bytes, chance: random.Random) -> bytes:
        return spoilt_bytes(request, chance)

    def random(self, chance: random.Random) -> bytes:
        return chance.randbytes(chance.randint(0, 200))

    async def ask(self, request: bytes) -> Answer:
        try:
            return Answer("OK", numbers=self._numbers(await self._call(request, timeout=30)))
        except grpc.aio.AioRpcError as error:
            return Answer(error.code().name, error.details() or "")

    @abstractmethod
    def _numbers(self, reply: bytes) -> Numbers: ...


class NativeDoor(GrpcDoor):
    """teacher.v1.TeacherService: ragged arrays."""

    name = "native"
    method = "/teacher.v1.TeacherService/Score"

    def request(self, work: ScoreWork, chance: random.Random) -> bytes:
        message = message_of(work)
        message.MergeFrom(
            pb.ScoreRequest(reply_type=chance.choice(pb.FloatType.keys()), priority=chance.choice(pb.Priority.keys()))
        )
        return message.SerializeToString()

    def expected(self, request: bytes, oracle: Oracle) -> Numbers:
        message = _parsed(pb.ScoreRequest, request)
        if message.digest or message.reply_type not in pb.FloatType.values():
            raise ValueError("for another teacher, or an answer of no known type")
        lengths = np.frombuffer(message.lengths, "<u4").astype(np.int64)
        work = ScoreWork(
            np.frombuffer(message.tokens, "<u2").astype(np.int32),
            lengths,
            np.frombuffer(message.scored, "<u4").astype(np.int64),
            np.full(len(lengths), message.window, np.int64),
            np.frombuffer(message.candidates, "<u2").astype(np.int32),
            np.frombuffer(message.candidate_counts, "<u2").astype(np.int64),
        )
        return oracle.log_probs(work).astype("<f2" if message.reply_type == 2 else "<f4")

    def _numbers(self, reply: bytes) -> Numbers:
        message = pb.ScoreResponse.FromString(reply)
        return np.frombuffer(message.log_probs, "<f2" if message.reply_type == 2 else "<f4")


class TripsDoor(GrpcDoor):
    """teacher.v1.TeacherService, asked how probable whole trips are."""

    name = "native trips"
    method = "/teacher.v1.TeacherService/Likelihood"

    def request(self, work: ScoreWork, chance: random.Random) -> bytes:
        return pb.LikelihoodRequest(
            tokens=work.tokens.astype("<u2").tobytes(),
            lengths=work.lengths.astype("<u4").tobytes(),
            priority=chance.choice(pb.Priority.keys()),
        ).SerializeToString()

    def expected(self, request: bytes, oracle: Oracle) -> Numbers:
        message = _parsed(pb.LikelihoodRequest, request)
        if message.digest:
            raise ValueError("for another teacher")
        lengths = np.frombuffer(message.lengths, "<u4").astype(np.int64)
        trips = TripWork(np.frombuffer(message.tokens, "<u2").astype(np.int32), lengths)
        return np.stack(oracle.likelihoods(trips))

    def _numbers(self, reply: bytes) -> Numbers:
        message = pb.LikelihoodResponse.FromString(reply)
        return np.stack([np.frombuffer(message.log_likelihoods, "<f8"), np.frombuffer(message.token_counts, "<u4")])


class InferenceDoor(GrpcDoor):
    """inference.GRPCInferenceService: padded tensors, raw or typed."""

    name = "inference"
    method = "/inference.GRPCInferenceService/ModelInfer"

    def request(self, work: ScoreWork, chance: random.Random) -> bytes:
        arrays, outputs = dense_question(work, chance)
        message = infer_message(arrays, "teacher", raw=chance.random() < 0.7, outputs=outputs)
        message.parameters["datatype"].string_param = chance.choice(("FP32", "FP16"))
        return message.SerializeToString()

    def expected(self, request: bytes, oracle: Oracle) -> Numbers:
        message = _parsed(oip.ModelInferRequest, request)
        arrays = {}
        for place, tensor in enumerate(message.inputs):
            raw, typed = message.raw_input_contents, tensor.contents.int_contents
            flat = np.frombuffer(raw[place], "<i4") if raw else np.array(typed, np.int32)
            arrays[tensor.name] = flat.reshape(tensor.shape)
        datatype = message.parameters["datatype"].string_param if "datatype" in message.parameters else "FP32"
        return dense_answer(arrays, [output.name for output in message.outputs], datatype, oracle)

    def _numbers(self, reply: bytes) -> Numbers:
        return numbers_of(outputs_in(oip.ModelInferResponse.FromString(reply)))


def _parsed(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError:
        raise Senseless from None
