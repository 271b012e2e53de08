"""What stands before every HTTP page: who may ask, and how many at a time. Health is always answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from teacher_server.errors import Overloaded, TeacherError, Unauthenticated
from teacher_server.http_status import error_response
from teacher_server.security import Access

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEALTH_PAGES = frozenset({"/livez", "/readyz", "/healthz", "/v2/health/live", "/v2/health/ready"})
METRICS_PAGES = frozenset({"/", "/metrics"})
PEER_VERIFIED = "peer_verified"  # in the request's state: the client showed a certificate that the client CA signed


class HttpGuard:
    """An ASGI application around another one. No tokens and no certificates: whoever reaches the port may ask."""

    def __init__(self, app: App, access: Access, max_requests: int) -> None:
        self._app, self._tokens = app, access.tokens
        self._certificates = access.tls is not None and access.tls.asks_for_certificates
        self._open = HEALTH_PAGES | METRICS_PAGES if access.open_metrics else HEALTH_PAGES
        self._max_requests, self._requests = max_requests, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["path"] not in self._open:
                self._check(scope)
            if scope["path"] in HEALTH_PAGES | METRICS_PAGES:  # small ones, which matter most when there is much to do
                await self._app(scope, receive, send)
            else:
                await self._in_turn(scope, receive, send)
        except TeacherError as error:  # the guard's own: the application answers its errors itself
            await error_response(error)(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        if self._certificates and not scope["state"].get(PEER_VERIFIED):
            raise Unauthenticated("this teacher asks for a client certificate")
        if self._tokens:
            self._tokens.check(value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization")

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._requests >= self._max_requests:
            raise Overloaded(
                f"{self._requests} HTTP requests are being answered, and no more are taken at a time: try again later"
            )
        self._requests += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._requests -= 1
