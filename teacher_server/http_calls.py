"""What is around every HTTP page: its call's id, told in a header, and for the model's pages a span.

A server that is leaving closes its connections after each answer, so that clients connect to another one.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

from teacher_server.calls import REQUEST_ID, Calls
from teacher_server.http_guard import App, Receive, Scope, Send

TRACED = "/v2/models/"  # health and monitoring, asked every few seconds, would drown the rest


class HttpCalls:
    """An ASGI application around another one."""

    def __init__(self, app: App, calls: Calls, is_leaving: Callable[[], bool]) -> None:
        self._app, self._calls, self._untraced, self._is_leaving = app, calls, Calls(), is_leaving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        calls = self._calls if scope["path"].startswith(TRACED) else self._untraced
        headers = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
        with calls.entered(f"{scope['method']} {scope['path']}", headers) as call:

            async def send_with_id(message: MutableMapping[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [*message["headers"], (REQUEST_ID.encode(), call.id.encode())]
                    if self._is_leaving():
                        message["headers"].append((b"connection", b"close"))
                await send(message)

            await self._app(scope, receive, send_with_id)
