"""What is around every call, whichever door it comes through: its id and its span."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field

REQUEST_ID = "x-request-id"  # gRPC metadata or HTTP header, in the request and in the answer
TRACEPARENT, TRACESTATE = "traceparent", "tracestate"  # W3C Trace Context
# What may stand in a log line and in a header as it is.
GOOD_ID = re.compile(r"[A-Za-z0-9._:/@+=-]{1,128}")

Tracer = Callable[[str, Mapping[str, str]], AbstractContextManager[object]]


@dataclass
class Call:
    """A call that is being answered."""

    id: str


_current: ContextVar[Call | None] = ContextVar("teacher_call", default=None)


def current_id() -> str:
    """The id of the call that is being answered here; empty where there is none."""
    call = _current.get()
    return call.id if call else ""


def take_over_id(given: str) -> None:
    """Call the current call by the id that stands in its message, if that is a good one."""
    call = _current.get()
    if call and GOOD_ID.fullmatch(given):
        call.id = given


@dataclass(frozen=True)
class Calls:
    """`tracer` opens a span around a call of that name with these headers."""

    tracer: Tracer = field(default=lambda name, headers: nullcontext())

    @contextmanager
    def entered(self, name: str, headers: Iterable[tuple[str, str | bytes]]) -> Iterator[Call]:
        """The call, whose id is the caller's or a new one. Headers' names are lower case."""
        wanted = {key: value for key, value in headers if key in (REQUEST_ID, TRACEPARENT, TRACESTATE)}
        known = {key: value for key, value in wanted.items() if isinstance(value, str)}
        given = known.get(REQUEST_ID, "")
        call = Call(given if GOOD_ID.fullmatch(given) else secrets.token_hex(8))
        token = _current.set(call)
        try:
            with self.tracer(name, known):
                yield call
        finally:
            _current.reset(token)
