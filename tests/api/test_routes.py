"""Every route by every role: nothing is open that does not say so, under either prefix."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.app import create_api
from api.auth import Access
from api.context import Context
from api.routes import PREFIXES, Routes, SecuredRoute, refuse_undeclared
from inferq import errors
from inferq.config import Settings
from inferq.job import new_job_id
from tests.api.stack import Stack, serving, settings_for

OPEN = {"/", "/docs", "/docs/{asset}", "/openapi.json", "/livez", "/readyz", "/health", "/metrics"}
NEEDS = {
    "POST /chat/completions": Access.USER,
    "POST /completions": Access.USER,
    "POST /embeddings": Access.USER,
    "POST /responses": Access.USER,
    "POST /messages": Access.USER,
    "POST /rerank": Access.USER,
    "POST /images/generations": Access.USER,
    "POST /images/edits": Access.USER,
    "POST /audio/speech": Access.USER,
    "POST /audio/transcriptions": Access.USER,
    "POST /audio/translations": Access.USER,
    "POST /video/generations": Access.USER,
    "GET /video/generations/{video_id}": Access.READONLY,
    "POST /videos": Access.USER,
    "GET /videos": Access.READONLY,
    "GET /videos/{video_id}": Access.READONLY,
    "GET /videos/{video_id}/content": Access.READONLY,
    "DELETE /videos/{video_id}": Access.USER,
    "POST /jobs": Access.USER,
    "GET /jobs": Access.READONLY,
    "GET /jobs/{job_id}": Access.READONLY,
    "POST /jobs/{job_id}/cancel": Access.USER,
    "POST /jobs/{job_id}/retry": Access.USER,
    "POST /jobs/{job_id}/requeue": Access.USER,
    "GET /jobs/{job_id}/events": Access.READONLY,
    "GET /jobs/{job_id}/result": Access.READONLY,
    "POST /groups": Access.USER,
    "GET /groups": Access.READONLY,
    "GET /groups/{group_id}": Access.READONLY,
    "GET /groups/{group_id}/jobs": Access.READONLY,
    "POST /groups/{group_id}/cancel": Access.USER,
    "POST /schedules": Access.USER,
    "GET /schedules": Access.READONLY,
    "GET /schedules/{schedule}": Access.READONLY,
    "PATCH /schedules/{schedule}": Access.USER,
    "DELETE /schedules/{schedule}": Access.USER,
    "GET /dead": Access.READONLY,
    "GET /dead/groups": Access.READONLY,
    "GET /dead/{job_id}": Access.READONLY,
    "POST /dead/requeue": Access.USER,
    "POST /dead/purge": Access.ADMIN,
    "GET /artifacts/{sha256}": Access.READONLY,
    "GET /models": Access.READONLY,
    "GET /models/{model:path}": Access.READONLY,
    "POST /models/pull": Access.ADMIN,
    "GET /running_models": Access.READONLY,
    "GET /nodes": Access.READONLY,
    "GET /profiler": Access.READONLY,
    "PATCH /jobs/{job_id}": Access.USER,
    "GET /queues": Access.READONLY,
    "POST /queues/pauses": Access.ADMIN,
    "DELETE /queues/pauses/{kind}/{name:path}": Access.ADMIN,
    "POST /keys": Access.ADMIN,
    "GET /webhooks/deliveries": Access.READONLY,
    "GET /webhooks/deliveries/{delivery_id}": Access.READONLY,
    "POST /webhooks/deliveries/{delivery_id}/retry": Access.USER,
    "POST /webhooks/test": Access.USER,
    "GET /webhooks/secret": Access.ADMIN,
    "GET /keys": Access.ADMIN,
    "DELETE /keys/{key}": Access.ADMIN,
}
BESIDES = {
    "GET /status": Access.READONLY,
    "POST /rerank": Access.USER,
    "POST /v2/rerank": Access.USER,
    "POST /openai/v2/rerank": Access.USER,
}
"""Routes without a version before them."""
ROLES = {None: Access.PUBLIC, "readonly": Access.READONLY, "user": Access.USER, "admin": Access.ADMIN}
VALUES = {
    "job_id": new_job_id(),
    "video_id": new_job_id(),
    "sha256": "0" * 64,
    "model:path": "none",
    "key": "none",
    "kind": "lane",
    "name:path": "none",
    "group_id": new_job_id(),
    "schedule": "none",
    "asset": "none",
}


def declared(context: Context) -> Iterator[tuple[str, SecuredRoute]]:
    for route in create_api(context).routes:
        assert isinstance(route, SecuredRoute)
        assert route.methods is not None
        yield next(iter(route.methods)), route


def filled(path: str) -> str:
    for name, value in VALUES.items():
        path = path.replace(f"{{{name}}}", value)
    return path


async def test_routes_need_what_the_table_says(stack: Stack) -> None:
    found = {f"{method} {route.path}": route.access for method, route in declared(stack.context)}
    wanted = {f"GET {path}": Access.PUBLIC for path in OPEN} | BESIDES
    for entry, access in NEEDS.items():
        method, path = entry.split()
        wanted |= {f"{method} {prefix}{path}": access for prefix in PREFIXES}
    assert found == wanted


@pytest.mark.parametrize("who", ROLES, ids=str)
async def test_every_route_admits_only_the_roles_it_names(stack: Stack, who: str | None) -> None:
    for method, route in declared(stack.context):
        response = await stack.http.request(method, filled(route.path), headers=stack.headers(who))
        admitted = ROLES[who] >= route.access
        expected = (
            response.status_code not in (401, 403)
            if admitted
            else response.status_code == (403 if who else 401)
        )
        assert expected, f"{method} {route.path} answered {response.status_code} to {who}"
        assert response.status_code < 500
        assert response.headers["x-request-id"]
        if response.status_code >= 400:
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}


async def test_an_unknown_key_is_refused_everywhere(stack: Stack) -> None:
    for method, route in declared(stack.context):
        if route.access is Access.PUBLIC:
            continue
        response = await stack.http.request(
            method, filled(route.path), headers={"Authorization": "Bearer iq-wrong"}
        )
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["error"]["code"] == "invalid_api_key"


def test_a_route_that_declares_nothing_is_refused_at_start() -> None:
    async def open_to_all(_request: Request) -> Response:
        return Response()

    with pytest.raises(errors.ConfigError, match="/secret"):
        refuse_undeclared([Route("/secret", open_to_all)])
    with pytest.raises(TypeError, match="access"):
        Routes("Test").route("GET", "/secret", summary="Forgot something")  # type: ignore[call-arg]


def test_routes_of_a_router_are_secured() -> None:
    routes, app = Routes("Test"), FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @routes.route("GET", "/thing", access=Access.ADMIN, summary="A thing")
    async def thing(_request: Request) -> Response:
        return Response()

    routes.install(app)
    refuse_undeclared(app.routes)
    assert [route.path for route in app.routes if isinstance(route, SecuredRoute)] == [
        f"{p}/thing" for p in PREFIXES
    ]


async def test_keys_are_taken_from_the_headers_clients_use(stack: Stack) -> None:
    key = stack.keys["readonly"]
    for headers in ({"Authorization": f"bearer {key}"}, {"api-key": key}, {"X-Api-Key": key}):
        assert (await stack.http.get("/v1/models", headers=headers)).status_code == 200, headers


async def test_the_host_header_opens_nothing(stack: Stack) -> None:
    headers = {"Host": "x/health?"}
    assert (await stack.http.get("/v1/keys", headers=headers)).status_code == 401


async def test_a_request_id_of_the_caller_is_kept_when_it_is_sane(stack: Stack) -> None:
    for given, kept in (("mine-1.2:3", True), ("a b", False), ("x" * 129, False), ("", False)):
        response = await stack.http.get("/livez", headers={"X-Request-Id": given})
        assert (response.headers["x-request-id"] == given) is kept
        assert response.headers["x-request-id"]


async def test_the_access_log_has_one_line_per_request(
    settings: Settings, template: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "api.access")
    logging = settings_for(settings.home, settings.redis_url, api={"access_log": True})
    async with serving(logging, template) as stack:
        response = await stack.get("/v1/no%0Athing")
    (record,) = [record for record in caplog.records if record.name == "api.access"]
    assert record.getMessage().startswith("GET '/v1/no\\nthing' 404 ")
    assert response.headers["x-request-id"] in record.getMessage()


async def test_a_revoked_key_ends_at_once(stack: Stack) -> None:
    assert (await stack.get("/v1/models", "other")).status_code == 200
    response = await stack.http.delete("/v1/keys/other", headers=stack.headers("admin"))
    assert response.json()["revoked_at"]
    assert (await stack.get("/v1/models", "other")).status_code == 401


async def test_keys_are_made_listed_and_shown_once(stack: Stack) -> None:
    made = await stack.post(
        "/v1/keys", {"name": "new", "role": "user", "tenant": "team", "weight": 2}, "admin"
    )
    assert made.status_code == 200, made.text
    key = made.json()
    assert key["key"].startswith("iq-")
    assert (key["role"], key["tenant"], key["weight"]) == ("user", "team", 2.0)
    assert (await stack.http.get("/v1/models", headers={"api-key": key["key"]})).status_code == 200
    listed = (await stack.get("/v1/keys", "admin")).json()["data"]
    assert "new" in {each["name"] for each in listed}
    assert not any("key" in each or "digest" in each for each in listed)
    again = await stack.post("/v1/keys", {"name": "new", "role": "user"}, "admin")
    assert again.status_code == 409
    assert again.headers["x-should-retry"] == "false"


async def test_a_wrong_key_is_refused(stack: Stack) -> None:
    wrong = [
        ({"role": "user"}, "name"),
        ({"name": "x", "role": "king"}, "role"),
        ({"name": "x", "role": "user", "weight": 0}, "weight"),
        ({"name": "x", "role": "user", "colour": "red"}, "colour"),
    ]
    for body, param in wrong:
        response = await stack.post("/v1/keys", body, "admin")
        assert response.status_code == 400, body
        assert response.json()["error"]["param"] == param
