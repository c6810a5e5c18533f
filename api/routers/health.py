"""Is it alive, is it ready, how is it doing: probes, `/health`, `/metrics`, `/status`."""

import time
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

import psutil
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

import inferq
from api import operations
from api.auth import Access
from api.calls import json_response
from api.context import Context, caller_of, context_of
from api.exposition import expose
from api.fleet import (
    Fleet,
    Part,
    model_object,
    read_fleet,
    read_or_none,
    read_parts,
    replica_object,
    stopped,
)
from api.routes import Routes
from inferq import errors

routes = Routes("Health", versioned=False)


@routes.route(
    "GET",
    "/livez",
    access=Access.PUBLIC,
    summary="Is the process alive?",
    responses={"200": operations.answer("Yes.")},
)
async def livez(_request: Request) -> ASGIApp:
    """Depends on nothing but this process."""
    return json_response({"status": "ok"})


@routes.route(
    "GET",
    "/readyz",
    access=Access.PUBLIC,
    summary="Can it serve?",
    responses={
        "200": operations.answer("Yes."),
        "503": operations.answer("No; the parts that are away say why."),
    },
)
async def readyz(request: Request) -> ASGIApp:
    """Redis and the database answer. Does not ask for replicas: they come and go while the API serves."""
    redis, database = await read_parts(context_of(request))
    ready = redis.ok and database.ok
    content = {
        "status": "ok" if ready else "unavailable",
        "redis": redis.as_dict(),
        "database": database.as_dict(),
    }
    return json_response(content, status=HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)


@routes.route(
    "GET",
    "/health",
    access=Access.PUBLIC,
    summary="How is it doing?",
    responses={
        "200": operations.answer(
            "`healthy`, or `degraded` with the database away: interactive calls still work."
        ),
        "503": operations.answer("`unhealthy`: Redis is away, so calls cannot be answered."),
    },
)
async def health(request: Request) -> ASGIApp:
    """Status, uptime, models loaded, memory of this host, and how many requests went wrong."""
    context = context_of(request)
    fleet, (redis, database) = await read_fleet(context), await read_parts(context)
    status = "unhealthy" if not redis.ok else "healthy" if database.ok else "degraded"
    content = {
        "status": status,
        "timestamp": time.time(),
        "service_uptime": time.time() - context.started,
        "version": inferq.__version__,
        "model_loaded": bool(fleet.loaded),
        "models": fleet.loaded,
        "gpu_available": fleet.has_accelerator,
        "system_resources": _memory(),
        "requests": _requests(context),
        "components": {"redis": redis.ok, "database": database.ok},
    }
    return json_response(content, status=HTTPStatus.OK if redis.ok else HTTPStatus.SERVICE_UNAVAILABLE)


@routes.route(
    "GET",
    "/metrics",
    access=Access.PUBLIC,
    summary="Metrics for Prometheus",
    responses={
        "200": operations.answer("Prometheus text.", content={"text/plain": {"schema": {"type": "string"}}})
    },
)
async def metrics(request: Request) -> ASGIApp:
    """Numbers only, by model and lane; nothing of any request, key or tenant."""
    context = context_of(request)
    if not context.settings.monitoring.enabled:
        raise errors.NotFound("Metrics are switched off (monitoring.enabled).")
    return Response(await expose(context), headers={"Content-Type": CONTENT_TYPE_LATEST})


@routes.route(
    "GET",
    "/status",
    access=Access.READONLY,
    summary="The whole picture",
    responses={
        "200": operations.answer("Models, replicas, nodes, queues, and what is paused or drained."),
        **operations.failures(401),
    },
)
async def status(request: Request) -> ASGIApp:
    """Answers with Redis or the database away too; what came from them is then null."""
    context = context_of(request)
    fleet, (redis, database) = await read_fleet(context), await read_parts(context)
    pauses = await read_or_none(stopped(context, caller_of(request)))
    return json_response({**_status(context, fleet, redis, database), "pauses": pauses})


def _status(context: Context, fleet: Fleet, redis: Part, database: Part) -> dict[str, Any]:
    models = context.catalog.models
    return {
        "version": inferq.__version__,
        "uptime_seconds": time.time() - context.started,
        "home": str(context.settings.home),
        "models": [model_object(context, fleet, name, model) for name, model in models.items()],
        "replicas": None if fleet.replicas is None else [replica_object(each) for each in fleet.replicas],
        "nodes": None if fleet.nodes is None else [asdict(each) for each in fleet.nodes],
        "queues": None if fleet.depths is None else {name: fleet.waiting(name) for name in models},
        "redis": redis.as_dict(),
        "database": database.as_dict(),
    }


def _memory() -> dict[str, float]:
    memory = psutil.virtual_memory()
    return {"memory_used": memory.used, "memory_total": memory.total, "memory_percent": memory.percent}


def _requests(context: Context) -> dict[str, float]:
    total, failed = context.telemetry.total, context.telemetry.failed
    rate = 100.0 * (total - failed) / total if total else 100.0
    return {"total": total, "failed": failed, "success_rate": round(rate, 2)}
