"""The Open Inference Protocol over HTTP: /v2 and its description in OpenAPI."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import nullcontext
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Path, Request
from fastapi.responses import JSONResponse, Response
from pydantic.json_schema import models_json_schema
from starlette.requests import ClientDisconnect

from teacher_server import rest_models as records
from teacher_server.calls import take_over_id
from teacher_server.http_status import HTTP_STATUS_OF
from teacher_server.models import Models
from teacher_server.offload import offloaded
from teacher_server.oip_service import InferenceModel
from teacher_server.rest_body import JSON_LENGTH, read_body
from teacher_server.rest_tensors import read_inference, write_answer

T = TypeVar("T")

SCHEMAS = "#/components/schemas/{model}"
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": records.ErrorMessage, "description": "The request cannot be answered."},
    **{
        status: {"model": records.ErrorMessage, "description": (error.__doc__ or "").splitlines()[0]}
        for error, status in HTTP_STATUS_OF.items()
    },
}
BINARY: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
EXAMPLE = {
    "id": "two-trips",
    "parameters": {"datatype": "FP32", "priority": 1, "timeout": 5_000_000},
    "inputs": [
        {"name": "HISTORY", "datatype": "INT32", "shape": [2, 3], "data": [[1, 2, 3], [4, 5, 0]]},
        {"name": "HISTORY_LENGTH", "datatype": "INT32", "shape": [2, 1], "data": [[3], [2]]},
        {"name": "CANDIDATES", "datatype": "INT32", "shape": [2, 2], "data": [[6, 7], [8, 0]]},
        {"name": "CANDIDATE_COUNT", "datatype": "INT32", "shape": [2, 1], "data": [[2], [1]]},
    ],
}
INFER_REQUEST = {
    "parameters": [
        {
            "name": JSON_LENGTH,
            "in": "header",
            "required": False,
            "schema": {"type": "integer", "minimum": 0},
            "description": "With binary data: how many bytes of the body are JSON. The binary data lie behind it.",
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": SCHEMAS.format(model="InferRequest")}, "example": EXAMPLE},
            **BINARY,
        },
    },
}


def add_rest_pages(app: FastAPI, models: Models) -> None:
    """Offer the protocol's pages and describe them in the application's OpenAPI document."""
    app.include_router(_server_pages(models))

    def find(request: Request, *names: str) -> None:
        # An inference that ends here has ended as any other does, and is counted.
        with models.reading() if request.method == "POST" else nullcontext():
            request.state.model = models.named(*names)

    async def latest(request: Request, model_name: str) -> None:
        find(request, model_name)

    async def version(request: Request, model_name: str, model_version: Annotated[str, Path(examples=["1"])]) -> None:
        find(request, model_name, model_version)

    for prefix, known in (
        ("/v2/models/{model_name}", latest),
        ("/v2/models/{model_name}/versions/{model_version}", version),
    ):
        router = APIRouter(prefix=prefix, tags=["model"], dependencies=[Depends(known)], responses=ERRORS)
        _add_records(router, models)
        _add_inference(router)
        app.include_router(router)
    _describe_requests(app)


def _server_pages(models: Models) -> APIRouter:
    router = APIRouter(prefix="/v2", tags=["server"])

    @router.get("", response_model=records.ServerMetadata)
    async def server_metadata() -> dict[str, Any]:
        return models.server_metadata()

    @router.get("/health/live", response_model=records.ServerLive)
    async def server_live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/health/ready", response_model=records.ServerReady, responses={503: {"model": records.ServerReady}})
    async def server_ready() -> JSONResponse:
        return JSONResponse({"ready": models.ready}, 200 if models.ready else 503)

    @router.get("/models/stats", response_model=records.Statistics)
    async def statistics() -> dict[str, Any]:
        return models.statistics()

    @router.post("/repository/index", response_model=list[records.RepositoryEntry])
    async def repository_index() -> list[dict[str, str]]:
        """Which models there are, those included that cannot be served."""
        return models.index()

    return router


def _found(request: Request) -> InferenceModel:
    """The model that the page's address names."""
    model: InferenceModel = request.state.model
    return model


def _add_records(router: APIRouter, models: Models) -> None:
    @router.get("", response_model=records.ModelMetadata)
    async def model_metadata(request: Request) -> dict[str, Any]:
        return _found(request).metadata()

    @router.get("/ready", response_model=records.ModelReady, responses={503: {"model": records.ModelReady}})
    async def model_ready(request: Request) -> JSONResponse:
        model = _found(request)
        return JSONResponse({"name": model.name, "ready": model.ready}, 200 if model.ready else 503)

    @router.get("/config", response_model=records.ModelConfig, response_model_exclude_none=True)
    async def model_config(request: Request) -> dict[str, Any]:
        return _found(request).config()

    @router.get("/stats", response_model=records.Statistics)
    async def model_statistics(request: Request) -> dict[str, Any]:
        return models.statistics(_found(request))


def _add_inference(router: APIRouter) -> None:
    @router.post(
        "/infer",
        response_model=records.InferResponse,
        responses={200: {"content": BINARY}},
        openapi_extra=INFER_REQUEST,
    )
    async def infer(request: Request) -> Response:
        """Log-probabilities of candidate cells after histories, or likelihoods of whole trips, in the dense form."""
        model = _found(request)
        with model.service.reading():
            body = await read_body(request, model.service.limits.max_message_bytes)
            asked = await offloaded(len(body.json), read_inference, body)
        take_over_id(asked.id)
        answer = await _while_connected(request, model.infer(asked.inference))
        content, json_length = await offloaded(answer.nbytes, write_answer, asked, model.name, answer)
        if json_length is None:
            return Response(content, media_type="application/json")
        return Response(content, headers={JSON_LENGTH: str(json_length)}, media_type="application/octet-stream")


async def _while_connected(request: Request, answering: Coroutine[Any, Any, T]) -> T:
    """The answer; a caller that goes away meanwhile takes its work along."""
    answer = asyncio.ensure_future(answering)
    gone = asyncio.ensure_future(request.receive())  # the body has been read: what comes next is the end
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        answer.cancel()
        gone.cancel()


def _describe_requests(app: FastAPI) -> None:
    """Put the records of requests, whose bodies FastAPI does not read, into the OpenAPI document."""
    described = app.openapi
    _, schema = models_json_schema([(records.InferRequest, "validation")], ref_template=SCHEMAS)

    def openapi() -> dict[str, Any]:
        document = described()
        document["components"]["schemas"].update(schema["$defs"])
        return document

    app.openapi = openapi  # type: ignore[method-assign]
