"""The HTTP door: health pages and the Open Inference Protocol, by FastAPI under uvicorn in the server's event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline

from teacher_server import __version__
from teacher_server.addresses import TcpAddress, bind_tcp
from teacher_server.calls import Calls
from teacher_server.http_calls import HttpCalls
from teacher_server.http_connection import server_config
from teacher_server.http_guard import HttpGuard
from teacher_server.http_status import answer_errors
from teacher_server.limits import Connections
from teacher_server.models import Models
from teacher_server.reports import State
from teacher_server.rest_api import add_rest_pages
from teacher_server.security import Access


def http_app(models: Models, routers: Sequence[APIRouter] = ()) -> FastAPI:
    """`/livez` is 503 when the process must be restarted; `/readyz` and `/healthz` unless it takes requests.

    The Open Inference Protocol is under /v2; /docs describes all pages, without outside resources.
    `routers` bring more pages.
    """
    app = FastAPIOffline(title="LM-TAD teacher", version=__version__, redoc_url=None)
    answer_errors(app)
    add_rest_pages(app, models)

    def readiness(**more: Any) -> JSONResponse:
        state = models.state
        return JSONResponse({"status": state.value, **more}, 200 if state is State.READY else 503)

    @app.get("/livez")
    async def livez() -> JSONResponse:
        stuck = models.state is State.STUCK
        return JSONResponse({"status": "stuck" if stuck else "alive"}, 503 if stuck else 200)

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        return readiness()

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        if only := models.only:
            return readiness(digest=only.digest, compute_type=only.service.compute_type, version=__version__)
        told = [{"name": each.name, "digest": each.digest, "status": each.service.state.value} for each in models]
        return readiness(version=__version__, models=told, broken=sorted(models.broken))

    for router in routers:
        app.include_router(router)
    return app


class _Server(uvicorn.Server):
    """Uvicorn without signal handlers of its own: the process decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpDoor:
    """The HTTP server of some models on one address. Make and use it inside one event loop."""

    def __init__(
        self,
        models: Models,
        routers: Sequence[APIRouter] = (),
        connections: Connections | None = None,
        access: Access | None = None,
        calls: Calls | None = None,
    ) -> None:
        connections, access = connections or Connections(), access or Access()
        guarded = HttpGuard(http_app(models, routers), access, connections.max_http_requests, models.reading)
        app = HttpCalls(guarded, calls or Calls(), lambda: models.state in (State.LEAVING, State.DRAINING))
        self._server = _Server(server_config(app, connections, access))
        self._task: asyncio.Task[None] | None = None

    async def start(self, address: TcpAddress) -> TcpAddress:
        """Listen and answer; returns the address with the port that was bound. Raises BadSettings."""
        bound = bind_tcp(address)
        self._task = asyncio.create_task(self._server.serve(sockets=[bound]), name="teacher-http")
        while not (self._server.started or self._task.done()):
            await asyncio.sleep(0.005)
        return TcpAddress(address.host, bound.getsockname()[1])

    async def stop(self, grace: float) -> None:
        """Close the port, let requests end within `grace` seconds, close the connections."""
        self._server.config.timeout_graceful_shutdown = max(round(grace), 1)
        self._server.should_exit = True
        if self._task is not None:
            await self._task
