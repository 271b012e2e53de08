"""The pages for whoever watches a server: metrics for programs, a status page for people."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response

from teacher_server.device_memory import DeviceMemory
from teacher_server.exposition import Exposition
from teacher_server.models import Models
from teacher_server.rest_models import ErrorMessage
from teacher_server.status import Status, status_of

PAGE = Path(__file__).parent / "status_page"
FILES = {
    "/": ("index.html", "text/html"),
    "/status.css": ("status.css", "text/css"),
    "/status.js": ("status.js", "text/javascript"),
}
# Only what this server sends is loaded, nothing inline runs, and no other page may frame it.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}

NO_MODEL: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorMessage, "description": "No such model."},
    503: {"model": ErrorMessage, "description": "It cannot be served now."},
}


def monitor_router(models: Models, memory: DeviceMemory) -> APIRouter:
    """`/metrics` in Prometheus's text format, or OpenMetrics where the Accept header prefers it; the page `/`."""
    router, exposition = APIRouter(tags=["monitoring"]), Exposition(models, memory)

    @router.get("/metrics", response_class=Response)
    async def metrics(accept: Annotated[str, Header()] = "") -> Response:
        body, content_type = exposition.encode(accept)
        return Response(body, headers={"content-type": content_type})

    @router.get("/status.json", responses=NO_MODEL)
    async def status(response: Response, model: str = "") -> Status:
        """What the status page shows of a model, by its name or digest; empty: the first one."""
        response.headers["cache-control"] = "no-store"
        return status_of(models, memory, model)

    for path, (name, media_type) in FILES.items():
        page = _page((PAGE / name).read_bytes(), media_type)
        router.add_api_route(path, page, include_in_schema=False)
    return router


def _page(content: bytes, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def page() -> Response:
        return Response(content, headers=HEADERS, media_type=media_type)

    return page
