"""What callers get when something is wrong: one shape, the right status, the field by name."""

import asyncio
import math
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient

from api import errors as wire
from inferq import errors
from inferq.config import Settings
from tests.api.stack import CHAT, Stack, serving, settings_for


def classes(root: type[errors.InferqError]) -> set[type[errors.InferqError]]:
    return {root}.union(*(classes(each) for each in root.__subclasses__()))


def test_every_class_has_a_row() -> None:
    assert set(wire.STATUS) == {
        each for each in classes(errors.InferqError) if each.__module__ == "inferq.errors"
    }


def test_a_retry_after_is_one_that_clients_honour() -> None:
    assert [wire.retry_seconds(s) for s in (0.0, 1.2, 5000.0, math.inf, None)] == [1, 2, 120, 5, 5]


def error_of(response: Any) -> dict[str, Any]:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    return dict(body["error"])


async def test_unknown_paths_and_methods_have_the_shape(stack: Stack) -> None:
    missing = await stack.get("/v1/nothing")
    assert missing.status_code == 404
    assert error_of(missing)["code"] == "unknown_url"
    wrong = await stack.get("/v1/chat/completions")
    assert wrong.status_code == 405
    assert error_of(wrong)["code"] == "method_not_allowed"
    assert wrong.headers["allow"] == "POST"


async def test_an_unknown_model_tells_near_names(stack: Stack) -> None:
    response = await stack.post("/v1/chat/completions", {**CHAT, "model": "demo-chatt"})
    assert response.status_code == 404
    error = error_of(response)
    assert (error["code"], error["param"], error["type"]) == (
        "model_not_found",
        "model",
        "invalid_request_error",
    )
    assert "'demo-chat'" in error["message"]


async def test_a_model_of_another_type_tells_its_endpoint(stack: Stack) -> None:
    response = await stack.post("/v1/chat/completions", {**CHAT, "model": "demo-embed"})
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] == "model"
    assert "/v1/embeddings" in error["message"]


MESSAGE = {"role": "user", "content": "x"}


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("chat/completions", {"messages": [MESSAGE]}, "model"),
    ("chat/completions", {"model": 5, "messages": [MESSAGE]}, "model"),
    ("chat/completions", {"model": "demo-chat"}, "messages"),
    ("chat/completions", {**CHAT, "messages": []}, "messages"),
    ("chat/completions", {**CHAT, "messages": "hello"}, "messages"),
    ("chat/completions", {**CHAT, "messages": ["hello"]}, "messages[0]"),
    ("chat/completions", {**CHAT, "messages": [MESSAGE, {"content": "x"}]}, "messages[1].role"),
    ("chat/completions", {**CHAT, "messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
    ("chat/completions", {**CHAT, "messages": [{"role": "user"}]}, "messages[0].content"),
    ("chat/completions", {**CHAT, "messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
    ("chat/completions", {**CHAT, "messages": [{"role": "user", "content": [1]}]}, "messages[0].content[0]"),
    ("chat/completions", {**CHAT, "temperature": "hot"}, "temperature"),
    ("chat/completions", {**CHAT, "temperature": True}, "temperature"),
    ("chat/completions", {**CHAT, "temperature": 2.5}, "temperature"),
    ("chat/completions", {**CHAT, "max_tokens": 0}, "max_tokens"),
    ("chat/completions", {**CHAT, "max_tokens": 1.5}, "max_tokens"),
    ("chat/completions", {**CHAT, "stream": "yes"}, "stream"),
    ("chat/completions", {**CHAT, "stop": ["a", 1]}, "stop[1]"),
    ("chat/completions", {**CHAT, "tools": [1]}, "tools[0]"),
    ("chat/completions", {**CHAT, "tool_choice": "maybe"}, "tool_choice"),
    ("chat/completions", {**CHAT, "response_format": {}}, "response_format.type"),
    ("chat/completions", {**CHAT, "priority": "urgent"}, "priority"),
    ("chat/completions", {**CHAT, "priority": 10}, "priority"),
    ("chat/completions", {**CHAT, "service_tier": 3}, "service_tier"),
    ("chat/completions", {**CHAT, "metadata": {"a": 1}}, "metadata.a"),
    ("completions", {"model": "demo-chat"}, "prompt"),
    ("completions", {"model": "demo-chat", "prompt": ["a", 1]}, "prompt[1]"),
    ("embeddings", {"model": "demo-embed", "input": ""}, "input"),
    ("embeddings", {"model": "demo-embed", "input": []}, "input"),
    ("embeddings", {"model": "demo-embed", "input": "x", "encoding_format": "hex"}, "encoding_format"),
    ("jobs", {"model": "demo-chat", "body": "x"}, "body"),
    ("jobs", {"model": "demo-chat", "body": {}}, "messages"),
    ("jobs", {"model": "demo-chat", "body": CHAT, "endpoint": "images"}, "endpoint"),
    ("jobs", {"model": "demo-chat", "body": CHAT, "colour": 1}, "colour"),
    ("jobs", {"model": "demo-chat", "body": CHAT, "run_at": "5"}, "run_at"),
    ("jobs", {"model": "demo-chat", "body": {**CHAT, "model": "gpt-4o-mini"}}, "body.model"),
    ("jobs", {"body": {"messages": [MESSAGE]}}, "model"),
    ("jobs", {**CHAT, "webhook": "http://x.example/"}, "webhook"),
    ("jobs", {**CHAT, "webhook": "ftp://x.example/"}, "webhook"),
    ("jobs", {**CHAT, "webhook": "https://me:word@x.example/"}, "webhook"),
    ("jobs", {**CHAT, "webhook": {"url": "https://x.example/"}}, "webhook"),
    ("jobs", {"model": "demo-draw", "body": {}}, "prompt"),
]


async def test_a_wrong_field_is_named(stack: Stack) -> None:
    for path, body, param in WRONG:
        response = await stack.post(f"/v1/{path}", body)
        assert response.status_code == 400, (path, body)
        error = error_of(response)
        assert error["param"] == param, (path, body)
        assert error["type"] == "invalid_request_error"


async def test_a_body_that_is_no_json_object_is_refused(stack: Stack) -> None:
    for raw in (b"", b"{", b"[]", b'{"a": NaN}', b"\xff", b'"text"'):
        response = await stack.http.post("/v1/chat/completions", content=raw, headers=stack.headers())
        assert response.status_code == 400, raw
        assert error_of(response)["code"] == "invalid_request"


async def test_a_body_nested_too_deeply_is_refused(stack: Stack) -> None:
    deep = b'"deep": ' + b"[" * 500 + b"]" * 500
    for inside, outside, said in (
        (b", " + deep, b"", "nested deeper"),
        (b"", b", " + deep, "cannot be passed on"),
    ):
        message = b'{"role": "user", "content": "x"' + inside + b"}"
        raw = b'{"model": "demo-chat", "messages": [' + message + b"]" + outside + b"}"
        response = await stack.http.post("/v1/chat/completions", content=raw, headers=stack.headers())
        assert response.status_code == 400
        assert said in error_of(response)["message"]


async def test_a_compressed_body_is_refused(stack: Stack) -> None:
    headers = stack.headers(Content_Encoding="gzip")
    response = await stack.http.post("/v1/chat/completions", content=b"x", headers=headers)
    assert response.status_code == 400
    assert error_of(response)["param"] == "Content-Encoding"


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
async def test_a_body_over_the_limit_is_refused(settings: Settings, template: Any, chunked: bool) -> None:
    limited = settings_for(settings.home, settings.redis_url, api={"max_body": 1000})
    async with serving(limited, template) as stack:

        async def pieces() -> Any:
            for _ in range(20):
                yield b" " * 100

        content = pieces() if chunked else b" " * 1001
        response = await stack.http.post("/v1/chat/completions", content=content, headers=stack.headers())
        assert response.status_code == 413
        assert error_of(response)["code"] == "body_too_large"
        assert response.headers["connection"] == "close"


async def test_a_body_that_stops_coming_is_given_up(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.body.SILENCE", 0.2)
    url = httpx2.URL(stack.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {stack.keys['user']}\r\n"
    writer.write(f"{head}Content-Length: 100\r\n\r\n".encode() + b'{"model": ')
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"body_too_slow"' in answer


async def test_a_long_name_is_not_repeated_in_full(stack: Stack) -> None:
    body = {"model": "x" * 100_000, "messages": [{"role": "user", "content": "x"}]}
    response = await stack.http.post("/v1/chat/completions", json=body, headers=stack.headers())
    assert response.status_code == 404
    assert len(response.content) < 1000


async def test_an_unexpected_error_leaks_nothing(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def explode(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret in a traceback")

    monkeypatch.setattr(type(stack.context.storage.ledger), "list_jobs", explode)
    response = await stack.get("/v1/jobs")
    assert response.status_code == 500
    assert error_of(response)["code"] == "internal_error"
    assert "secret" not in response.text
    logged = [record for record in caplog.records if record.exc_info]
    assert response.headers["x-request-id"] in logged[0].getMessage()


async def test_fastapis_own_validation_answers_in_the_shape() -> None:
    app = FastAPI()
    wire.install(app)

    @app.get("/thing")
    async def thing(count: int) -> int:
        return count

    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://api") as http:
        response = await http.get("/thing?count=many")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "count"
