"""How every gRPC method here is answered: bytes in, bytes out, and each error as its status, in this one place."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from teacher_server.calls import REQUEST_ID, Calls
from teacher_server.errors import (
    EngineFailure,
    Expired,
    InvalidRequest,
    NotReady,
    Overloaded,
    TeacherError,
    TooLarge,
    Unauthenticated,
    UnknownModel,
    WrongTeacher,
)

M = TypeVar("M", bound=Message)
Method = Callable[[bytes, float | None], Awaitable[bytes]]  # serialised request, seconds that the caller still waits

log = logging.getLogger("teacher")

STATUS_OF: dict[type[TeacherError], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    TooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    UnknownModel: grpc.StatusCode.NOT_FOUND,
    WrongTeacher: grpc.StatusCode.FAILED_PRECONDITION,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Expired: grpc.StatusCode.DEADLINE_EXCEEDED,
    NotReady: grpc.StatusCode.UNAVAILABLE,
    EngineFailure: grpc.StatusCode.INTERNAL,
}
PUSHBACK = "grpc-retry-pushback-ms"  # gRPC clients with a retry policy wait so long before they try again


def service_handler(name: str, methods: Mapping[str, Method], calls: Calls) -> grpc.GenericRpcHandler:
    """What a server needs to offer the unary methods of a service.

    Requests arrive as bytes, so that bytes that are no message get the status of every other wrong request.
    """
    handlers = {
        method: grpc.unary_unary_rpc_method_handler(_answering(f"{name}/{method}", answer, calls))
        for method, answer in methods.items()
    }
    return grpc.method_handlers_generic_handler(name, handlers)


def parsed(kind: type[M], data: bytes) -> M:
    """The message in these bytes. Raises InvalidRequest where there is none."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise InvalidRequest(f"{len(data)} bytes that are no {kind.DESCRIPTOR.full_name}") from None


def _answering(name: str, method: Method, calls: Calls) -> Callable[[bytes, Any], Awaitable[bytes]]:
    """The method as gRPC calls it. Whatever becomes of a call, its id is in the trailing metadata."""

    async def answer(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        trailing: dict[str, str] = {}
        with calls.entered(name, context.invocation_metadata()) as call:
            try:
                return await method(data, context.time_remaining())
            except TeacherError as error:
                code, details = STATUS_OF[type(error)], error.brief
                if isinstance(error, Overloaded):
                    trailing[PUSHBACK] = str(round(error.retry_after * 1000))
            except Exception:
                log.exception("a request failed unexpectedly")
                code, details = grpc.StatusCode.INTERNAL, "internal error: see the server's log"
            finally:
                context.set_trailing_metadata(tuple({REQUEST_ID: call.id, **trailing}.items()))
        try:
            await context.abort(code, details)
        except grpc.aio.InternalError:  # the caller has gone in the meantime: nobody is there to be told
            raise asyncio.CancelledError from None
        raise AssertionError("abort raises")

    return answer
