"""Errors on the wire: the one table from class to HTTP status, and the one renderer of OpenAI's error object.

Every answer with an error has the same shape, ``{"error": {"message", "type", "param", "code"}}``, always four keys.
Nothing else in this folder chooses a status for an error. Messages of unexpected exceptions never leave the process.
"""

import math
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from api.departure import CallerLeft
from inferq import errors
from inferq.job import Failure

STATUS: dict[type[errors.InferqError], int] = {
    errors.InferqError: 500,
    errors.InvalidRequest: 400,
    errors.UnsupportedParameter: 400,
    errors.ContextLengthExceeded: 400,
    errors.ModelTooLarge: 400,
    errors.BodyTooLarge: 413,
    errors.BodyTooSlow: 408,
    errors.HeadersTooLarge: 431,
    errors.HeadersTooSlow: 408,
    errors.IdempotencyMismatch: 422,
    errors.NotReady: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.RefusedByHook: 403,
    errors.NotFound: 404,
    errors.ModelNotFound: 404,
    errors.JobNotFound: 404,
    errors.Conflict: 409,
    errors.LeaseLost: 409,
    errors.AtCapacity: 429,
    errors.QueueFull: 429,
    errors.RateLimited: 429,
    errors.BudgetSpent: 429,
    errors.EngineError: 500,
    errors.EngineLoadFailed: 503,
    errors.EngineCrashed: 502,
    errors.EngineTimeout: 504,
    errors.OutOfMemory: 500,
    errors.StreamBroken: 502,
    errors.Unavailable: 503,
    errors.QueueUnavailable: 503,
    errors.StoreUnavailable: 503,
    errors.ServerStopping: 503,
    errors.EngineUnavailable: 503,
    errors.TooManyConnections: 503,
    errors.ConfigError: 500,
}

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

_RETRY_LATER = frozenset({429, 503})
_LONGEST_RETRY = 120
"""OpenAI's clients give up at once when they are told to wait longer than two minutes."""
_DEFAULT_RETRY = 5
_NO_RETRY = frozenset({409, 504})
"""OpenAI's clients repeat these by themselves, which would run the same work again."""

CALLER_LEFT = 499
"""Never seen by anybody: the status under which metrics count calls whose caller hung up."""


def status_of(error: errors.InferqError) -> int:
    """The status of the error's class, else of the nearest class above it."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def type_of(status: int) -> str:
    return _TYPES.get(status) or (
        "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    )


def error_object(status: int, message: str, *, code: str | None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": type_of(status), "param": param, "code": code}}


def retry_seconds(seconds: float | None) -> int:
    """A `Retry-After` that clients honour: whole seconds from 1 to 120."""
    if seconds is None or not math.isfinite(seconds):
        return _DEFAULT_RETRY
    return min(_LONGEST_RETRY, max(1, math.ceil(seconds)))


def render(
    status: int,
    message: str,
    *,
    code: str | None,
    param: str | None = None,
    retry_after: float | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """An HTTP answer that carries one error."""
    extra = dict(headers or {})
    if status in _RETRY_LATER:
        extra["Retry-After"] = str(retry_seconds(retry_after))
    if status in _NO_RETRY:
        extra["X-Should-Retry"] = "false"
    if status == HTTPStatus.UNAUTHORIZED:
        extra["WWW-Authenticate"] = "Bearer"
    if status in (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.REQUEST_TIMEOUT):
        # The rest of the body is still on its way, or never comes: nobody reads it.
        extra["Connection"] = "close"
    content = orjson.dumps(error_object(status, message, code=code, param=param))
    return Response(content, status, extra, "application/json")


def respond(error: errors.InferqError) -> Response:
    """The answer for one of our own errors. A detail `job_id` becomes the header that answers of jobs carry."""
    job_id = error.details.get("job_id")
    return render(
        status_of(error),
        error.message,
        code=error.code,
        param=error.param,
        retry_after=error.retry_after,
        headers={"X-Job-Id": job_id} if job_id else None,
    )


def respond_failure(failure: Failure, job_id: str) -> Response:
    """The answer for a job that failed while its caller waited."""
    headers = {"X-Job-Id": job_id}
    return render(failure.status, failure.message, code=failure.code, param=failure.param, headers=headers)


def event_of(failure: Failure) -> bytes:
    """The event that ends a stream whose headers are already out. No `[DONE]` follows it: that would mean success."""
    body = error_object(failure.status, failure.message, code=failure.code, param=failure.param)
    return b"data: " + orjson.dumps(body) + b"\n\n"


def failure_of(error: errors.InferqError) -> Failure:
    return Failure(code=error.code, message=error.message, status=status_of(error), param=error.param)


def install(app: FastAPI) -> None:
    """Make the application answer every exception in the one shape."""
    app.add_exception_handler(errors.InferqError, _ours)
    app.add_exception_handler(HTTPException, _routing)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(CallerLeft, _caller_left)
    app.add_exception_handler(Exception, _unexpected)


async def _ours(_request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.InferqError)
    return respond(error)


async def _routing(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.scope["path"]
    messages = {
        HTTPStatus.NOT_FOUND: (
            "unknown_url",
            f"Unknown request URL: {request.method} {path}. The routes are at /docs.",
        ),
        HTTPStatus.METHOD_NOT_ALLOWED: ("method_not_allowed", f"{request.method} is not allowed for {path}."),
    }
    code, message = messages.get(HTTPStatus(error.status_code), ("http_error", str(error.detail)))
    return render(error.status_code, message, code=code, headers=dict(error.headers or {}))


async def _validation(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or None
    message = f"Invalid {where or 'request'}: {first['msg']}."
    return render(HTTPStatus.BAD_REQUEST, message, code=errors.InvalidRequest.code, param=where)


async def _caller_left(_request: Request, _error: Exception) -> Response:
    return Response(status_code=CALLER_LEFT)


async def _unexpected(_request: Request, _error: Exception) -> Response:
    """The boundary logs the exception with the request's id; the caller learns only that there was one."""
    message = "The server met an unexpected error. Its log names this request's X-Request-Id."
    return render(HTTPStatus.INTERNAL_SERVER_ERROR, message, code=errors.InferqError.code)
