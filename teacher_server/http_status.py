"""Each error as its HTTP status and `{"error": ...}`, for every page, in this one place."""

from __future__ import annotations

import math

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from teacher_server.errors import (
    EngineFailure,
    Expired,
    InvalidRequest,
    NotReady,
    Overloaded,
    TeacherError,
    TooLarge,
    Unauthenticated,
    UnknownModel,
    WrongTeacher,
)

HTTP_STATUS_OF: dict[type[TeacherError], int] = {
    InvalidRequest: 400,
    TooLarge: 413,
    Unauthenticated: 401,
    UnknownModel: 404,
    WrongTeacher: 412,
    Overloaded: 429,
    Expired: 504,
    NotReady: 503,
    EngineFailure: 500,
}


def answer_errors(app: FastAPI) -> None:
    """Make the application answer with the closed set's statuses whatever its pages raise."""
    app.add_exception_handler(TeacherError, _known)
    app.add_exception_handler(HTTPException, _no_such_page)
    app.add_exception_handler(ClientDisconnect, _nobody)
    app.add_exception_handler(Exception, _unexpected)


def error_response(error: TeacherError) -> JSONResponse:
    """What a caller is told."""
    headers = {}
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(max(math.ceil(error.retry_after), 1))  # whole seconds
    elif isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return _told(error.brief, HTTP_STATUS_OF[type(error)], headers)


async def _known(_: Request, error: Exception) -> Response:
    assert isinstance(error, TeacherError)
    return error_response(error)


async def _no_such_page(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _told(error.detail, error.status_code, dict(error.headers or {}))


async def _nobody(_: Request, error: Exception) -> Response:
    return Response(status_code=400)  # the caller has gone


async def _unexpected(_: Request, error: Exception) -> Response:
    return _told("internal error: see the server's log", 500, {})  # uvicorn logs it


def _told(error: str, status: int, headers: dict[str, str]) -> JSONResponse:
    return JSONResponse({"error": error}, status, headers)
