"""What stands before every HTTP page: who may ask, and how many at a time. Health is always answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from teacher_server.errors import Overloaded, TeacherError, Unauthenticated
from teacher_server.http_status import error_response
from teacher_server.security import Access

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Reading = AbstractContextManager[None]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEALTH_PAGES = frozenset({"/livez", "/readyz", "/healthz", "/v2/health/live", "/v2/health/ready"})
METRICS_PAGES = frozenset({"/", "/metrics", "/status.css", "/status.js", "/status.json"})
PEER_VERIFIED = "peer_verified"  # in the request's state: the client showed a certificate that the client CA signed


class HttpGuard:
    """An ASGI application around another one. No tokens and no certificates: whoever reaches the port may ask."""

    def __init__(
        self, app: App, access: Access, max_requests: int, reading: Callable[[], Reading] = nullcontext
    ) -> None:
        """`reading`: around what is done to a request before it reaches the service, for whoever counts refusals."""
        self._app, self._tokens = app, access.tokens
        self._certificates = access.tls is not None and access.tls.asks_for_certificates
        self._open = HEALTH_PAGES | METRICS_PAGES if access.open_metrics else HEALTH_PAGES
        self._max_requests, self._requests, self._reading = max_requests, 0, reading

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            # Health and metrics are small, and matter most when there is much to do.
            small = scope["path"] in HEALTH_PAGES | METRICS_PAGES
            with self._reading():
                if scope["path"] not in self._open:
                    self._check(scope)
                if not small:
                    self._check_room()
            await self._answer(scope, receive, send, weight=0 if small else 1)
        except TeacherError as error:  # the guard's own: the application answers its errors itself
            await error_response(error)(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        if self._certificates and not scope["state"].get(PEER_VERIFIED):
            raise Unauthenticated("this teacher asks for a client certificate")
        if self._tokens:
            self._tokens.check(value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization")

    def _check_room(self) -> None:
        if self._requests >= self._max_requests:
            raise Overloaded(
                f"{self._requests} HTTP requests are being answered, and no more are taken at a time: try again later"
            )

    async def _answer(self, scope: Scope, receive: Receive, send: Send, weight: int) -> None:
        self._requests += weight
        try:
            await self._app(scope, receive, send)
        finally:
            self._requests -= weight
