"""Errors as gRPC statuses: the mapping, and the ones that only a service in trouble has, over both gRPC services."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from teacher_server.addresses import TcpAddress
from teacher_server.errors import MAX_BRIEF, BadArtifact, BadSettings, InvalidRequest, TeacherError
from teacher_server.grpc_api import GrpcDoor
from teacher_server.grpc_status import PUSHBACK, STATUS_OF
from teacher_server.models import Models
from teacher_server.service import Scores, Service
from tests.teacher_server.dense_clients import infer_message
from tests.teacher_server.gated import Gated, gated
from tests.teacher_server.scoring import dense_arrays_of, message_of, work_of
from tests.teacher_server.test_batcher import until

WORK = work_of([[1, 2, 3]], [[[6, 7]]])
CALLS = {
    "/teacher.v1.TeacherService/Score": message_of(WORK).SerializeToString(),
    "/inference.GRPCInferenceService/ModelInfer": infer_message(dense_arrays_of(WORK), "teacher").SerializeToString(),
}
Ask = Callable[[], Awaitable[bytes]]


def run(method: str, body: Callable[[Ask, Gated], Awaitable[None]], kind: type[Service] = Service) -> None:
    """A gRPC door on a real port over a service of its own with a small queue, asked by one method."""

    async def whole() -> None:
        async with gated(kind) as served:
            door = GrpcDoor(Models([served.model]))
            address = door.bind(TcpAddress("127.0.0.1", 0))
            await door.start()
            async with grpc.aio.insecure_channel(str(address)) as channel:
                call: Any = channel.unary_unary(method)
                await body(lambda: call(CALLS[method], timeout=30), served)
            served.device.go.set()
            await door.stop(1)

    asyncio.run(whole())


def test_the_mapping_covers_every_request_error() -> None:
    only_at_start = {BadArtifact, BadSettings}
    assert set(STATUS_OF) == set(TeacherError.__subclasses__()) - only_at_start
    # gRPC has one status for a queue that is full and a request that is too large; the first comes with a pushback.
    assert len(set(STATUS_OF.values())) == len(STATUS_OF) - 1
    assert not any(error.__subclasses__() for error in STATUS_OF)


def test_a_message_fits_into_a_trailer() -> None:
    assert InvalidRequest("short").brief == "short"
    assert len(InvalidRequest("long" * 1000).brief) == MAX_BRIEF + 3


@pytest.mark.parametrize("method", CALLS)
def test_a_full_queue_says_when_to_come_back(method: str) -> None:
    async def body(ask: Ask, served: Gated) -> None:
        served.device.go.clear()
        waiting = [asyncio.ensure_future(ask())]
        await until(lambda: served.device.begun == 1)
        waiting.append(asyncio.ensure_future(ask()))
        await asyncio.sleep(0.2)
        with pytest.raises(grpc.aio.AioRpcError, match="try again") as caught:
            await ask()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert int(dict(caught.value.trailing_metadata())[PUSHBACK]) > 0
        served.device.go.set()
        await asyncio.gather(*waiting)

    run(method, body)


@pytest.mark.parametrize("method", CALLS)
def test_a_device_that_fails_is_internal(method: str) -> None:
    async def body(ask: Ask, served: Gated) -> None:
        served.device.fault = "no kernel image"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask()
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        served.device.fault = ""
        await ask()

    run(method, body)


class Careless(Service):
    async def score(self, *_: Any, **__: Any) -> Scores:
        raise RuntimeError("/secret/path")


@pytest.mark.parametrize("method", CALLS)
def test_what_nobody_expected_is_internal_and_says_nothing(method: str) -> None:
    async def body(ask: Ask, served: Gated) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask()
        told = (caught.value.code(), caught.value.details())
        assert told == (grpc.StatusCode.INTERNAL, "internal error: see the server's log")

    run(method, body, Careless)
