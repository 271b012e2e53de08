"""Well-behaved callers of a server with TLS: right requests with deadlines, whose answers are compared and timed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import httpx
import numpy as np

from bench.reliability.oracle import Oracle, same
from bench.reliability.scenario import percentiles_ms, random_work
from bench.served import message_of
from protos.teacher.v1 import teacher_pb2 as pb
from protos.teacher.v1 import teacher_pb2_grpc
from teacher_server.dense import read_request
from teacher_server.rows import Floats
from tests.certificates import PemFiles
from tests.teacher_server.dense_clients import infer_json, log_probs_of_json
from tests.teacher_server.scoring import dense_arrays_of

GRPC_CALLERS, REST_CALLERS = 4, 2
INFER = "/v2/models/teacher/infer"
# Whoever waits for a server that has been started again looks for it every second, not ever more seldom.
OPTIONS = (("grpc.max_reconnect_backoff_ms", 1000), ("grpc.initial_reconnect_backoff_ms", 200))


@dataclass(frozen=True)
class Call:
    """What became of a call. Times are perf_counter seconds."""

    started: float
    ended: float
    status: str  # OK, "wrong answer", or the protocol's status

    @property
    def seconds(self) -> float:
        return self.ended - self.started


@dataclass
class Calls:
    """All calls so far."""

    ended: list[Call] = field(default_factory=list)

    def since(self, start: float) -> Calls:
        """Those that began then or later."""
        return Calls([call for call in self.ended if call.started >= start])

    def statuses(self) -> dict[str, int]:
        return dict(Counter(call.status for call in self.ended))

    def answered_ms(self) -> dict[str, float]:
        return percentiles_ms([call.seconds for call in self.ended if call.status == "OK"])

    def slowest(self) -> float:
        return max((call.seconds for call in self.ended), default=0.0)


@dataclass(frozen=True)
class Question:
    """One right request for each door, and its answers."""

    native: pb.ScoreRequest
    rest: dict[str, object]
    flat: Floats
    dense: Floats

    @classmethod
    def at_random(cls, rng: np.random.Generator, oracle: Oracle) -> Question:
        work = random_work(rng, 4, 40, 7)
        arrays = dense_arrays_of(work)
        dense, flat = read_request(arrays), oracle.log_probs(work)
        return cls(message_of(work), infer_json(arrays), flat, dense.log_probs(flat))


@dataclass(frozen=True)
class Callers:
    """Who asks, one question after the other, until cancelled. `deadline`: seconds for each answer."""

    grpc: str
    http: str
    files: PemFiles
    questions: Sequence[Question]
    deadline: float
    calls: Calls = field(default_factory=Calls)

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[Calls]:
        """Calls go on for the time of an `async with`."""
        credentials = grpc.ssl_channel_credentials(self.files.ca.read_bytes())
        context = self.files.client_context(self.files.ca)
        async with (
            grpc.aio.secure_channel(self.grpc, credentials, options=OPTIONS) as channel,
            httpx.AsyncClient(base_url=self.http, verify=context, timeout=self.deadline) as client,
        ):
            stub = teacher_pb2_grpc.TeacherServiceStub(channel)
            native = [asyncio.create_task(self._native(stub, n)) for n in range(GRPC_CALLERS)]
            rest = [asyncio.create_task(self._rest(client, n)) for n in range(REST_CALLERS)]
            try:
                yield self.calls
            finally:
                for task in [*native, *rest]:
                    task.cancel()
                await asyncio.gather(*native, *rest, return_exceptions=True)

    async def _native(self, stub: teacher_pb2_grpc.TeacherServiceStub, first: int) -> None:
        async for question in self._turns(first):
            started, status = time.perf_counter(), "OK"
            try:
                reply = await stub.Score(question.native, timeout=self.deadline)
            except grpc.aio.AioRpcError as error:
                status = error.code().name
            else:
                if not same(np.frombuffer(reply.log_probs, "<f4"), question.flat):
                    status = "wrong answer"
            self.calls.ended.append(Call(started, time.perf_counter(), status))

    async def _rest(self, client: httpx.AsyncClient, first: int) -> None:
        async for question in self._turns(first):
            started, status = time.perf_counter(), "OK"
            try:
                reply = await client.post(INFER, json=question.rest)
            except httpx.TimeoutException:
                status = "DEADLINE_EXCEEDED"  # by gRPC's names, so that they can be counted together
            except httpx.TransportError:
                status = "UNAVAILABLE"
            else:
                right = reply.status_code == 200 and same(log_probs_of_json(reply.json()), question.dense)
                status = "OK" if right else "wrong answer" if reply.status_code == 200 else str(reply.status_code)
            self.calls.ended.append(Call(started, time.perf_counter(), status))

    async def _turns(self, first: int) -> AsyncIterator[Question]:
        turn = first
        while True:
            yield self.questions[turn % len(self.questions)]
            turn += 1
            await asyncio.sleep(0.02)  # steady, not as much as the server can do; and no busy loop when it is gone
