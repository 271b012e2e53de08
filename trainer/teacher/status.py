"""gRPC's status codes as an endpoint's errors, for every protocol that a teacher speaks over it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from trainer.teacher.endpoint import EndpointError, Trouble

Code = grpc.StatusCode
PUSHBACK = "grpc-retry-pushback-ms"
LONGEST_PUSHBACK_S = 60.0


@contextmanager
def reporting(where: str, unknown_method: str = "is a gRPC server, but no teacher") -> Iterator[None]:
    """Turns what a gRPC call at `where` raises into EndpointError; `unknown_method`: what lacks the method."""
    try:
        yield
    except grpc.RpcError as error:
        if error.code() is Code.UNIMPLEMENTED:
            raise EndpointError(Trouble.MISTAKE, f"{where} {unknown_method} ({error.details()})") from None
        raise endpoint_error(error.code(), error.details() or "", where, _pushback_s(error)) from None
    except ValueError as error:  # how gRPC refuses calls on a channel that was closed
        raise EndpointError(Trouble.LOST, f"CANCELLED: {error}") from None


def endpoint_error(code: grpc.StatusCode, details: str, where: str, pushback_s: float | None = None) -> EndpointError:
    """The meaning of a status that a teacher, or what stands before it, answers with."""
    if code is Code.RESOURCE_EXHAUSTED and pushback_s is not None:
        return EndpointError(Trouble.FULL, details, pushback_s)
    if code in (Code.FAILED_PRECONDITION, Code.NOT_FOUND):
        return EndpointError(Trouble.OTHER, f"{where}: {details}")
    if code is Code.INVALID_ARGUMENT:
        return EndpointError(Trouble.MISTAKE, f"{where} refused the request: {details}")
    if code is Code.UNAUTHENTICATED:
        hint = "TRAINER_TEACHER_TOKEN_FILE names the file with the token"
        return EndpointError(Trouble.MISTAKE, f"{where}: {details} ({hint})")
    return EndpointError(Trouble.LOST, f"{code.name}: {details}", pushback_s)


def _pushback_s(error: grpc.RpcError) -> float | None:
    """What the server says of when to come back; never more than a minute."""
    told = dict(error.trailing_metadata() or ()).get(PUSHBACK)
    with contextlib.suppress(TypeError, ValueError):
        wanted = int(told) / 1000  # type: ignore[arg-type]
        return min(wanted, LONGEST_PUSHBACK_S) if wanted >= 0 else None
    return None
