"""The pages for whoever watches a server: metrics."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Response

from teacher_server.exposition import Exposition


def monitor_router(exposition: Exposition) -> APIRouter:
    """`/metrics` in Prometheus's text format, or OpenMetrics where the Accept header prefers it."""
    router = APIRouter(tags=["monitoring"])

    @router.get("/metrics", response_class=Response)
    async def metrics(accept: Annotated[str, Header()] = "") -> Response:
        body, content_type = exposition.encode(accept)
        return Response(body, headers={"content-type": content_type})

    return router
