"""An HTTP connection under uvicorn that nobody can hold for ever by sending or reading slowly."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from teacher_server.http_guard import PEER_VERIFIED, App
from teacher_server.limits import Connections
from teacher_server.security import Access

MAX_CONNECTIONS = 1_000  # open at once, those that wait for their next request included
MAX_HEADER_BYTES = 16_384  # the request line and all headers


def server_config(app: App, connections: Connections, access: Access) -> uvicorn.Config:
    """Uvicorn's settings for an application whose connections are bounded."""
    config = uvicorn.Config(
        app,
        http=cast(type[asyncio.Protocol], partial(BoundedConnection, patience=connections.http_timeout)),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )
    config.load()
    if access.tls:
        config.ssl = access.tls.http_context()
    return config


class BoundedConnection(H11Protocol):
    """Uvicorn's own, which bounds the pause between requests only, with three more bounds.

    A whole request must arrive in time, a client must go on reading, and there are so many connections at most. What
    breaks a bound is cut off without an answer. The request's state says whether the client's certificate was verified.
    """

    def __init__(self, *, patience: float, **settings: Any) -> None:
        super().__init__(**settings)
        self._reading, self._writing = _Clock(self, patience), _Clock(self, patience)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # With a client CA a certificate is only here if OpenSSL has verified it.
        self.app_state = {**self.app_state, PEER_VERIFIED: bool(transport.get_extra_info("peercert"))}
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        self._watch_reading()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._reading.stop()
        self._writing.stop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writing.run()

    def resume_writing(self) -> None:
        self._writing.stop()
        super().resume_writing()

    def on_response_complete(self) -> None:
        super().on_response_complete()  # which takes the next request, if it is here; the pause before it is uvicorn's
        if self.conn.their_state is h11.SEND_BODY:
            self._watch_reading()

    def _watch_reading(self) -> None:
        """The clock runs while a request is only partly here, and is not set back by each of its bytes."""
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._reading.run()
        else:
            self._reading.stop()


class _Clock:
    """Cuts a connection off when it has run for so many seconds without a stop."""

    def __init__(self, connection: BoundedConnection, seconds: float) -> None:
        self._connection, self._seconds = connection, seconds
        self._timer: asyncio.TimerHandle | None = None

    def run(self) -> None:
        if self._timer is None:
            self._timer = self._connection.loop.call_later(self._seconds, self._connection.transport.abort)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
