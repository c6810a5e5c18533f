"""The remote engine: any OpenAI-compatible server as a model.

Options: `url` (up to `/v1`; default: the model's source), `remote_model` (its name there; default: the served name),
`key_env` (the environment variable that holds the key; the key itself stands in no configuration), `key_header`
(default `authorization`, which gets `Bearer KEY`; any other gets the key alone), `headers`, `timeout_s` (longest
silence of the upstream, default 600) and `verify` (certificates, default true).

It reads nothing but `model`: what the upstream does not know, the upstream refuses. It follows no redirect, for that
would hand the key to somebody else. It runs in the gateway's environment as well as in the engines'.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx2

from inferq.sse import EventCutter
from workers.engines import encoding
from workers.engines.asgi import EVENTS, Call, EngineApp, Handler, Reply, Stream
from workers.engines.base import Engine, main
from workers.engines.failures import EngineFault
from workers.engines.fields import Fields
from workers.engines.keys import without_key
from workers.engines.launch import Launch, Options, checked_url
from workers.engines.remote_body import FORMS, embedded, form_of

ENDPOINTS = (
    *("chat/completions", "completions", "embeddings", "rerank", "responses", "messages"),
    *("images/generations", "images/edits", "audio/speech", "audio/transcriptions", "audio/translations"),
)
JSON = "application/json"
KEY_HEADERS = frozenset(("authorization", "x-api-key", "api-key", "proxy-authorization"))
CONNECT_S = 15.0
MOST_ERROR = 64 * 1024
MOST_BYTES = 128 * 1024 * 1024
"""Of one whole answer, or of one event, unpacked."""
EVENT_END = re.compile(rb"\r?\n\r?\n")
# The first `model` of an event. Inside a text of the answer its quotation marks would have backslashes.
MODEL = re.compile(rb'(?<!\\)"model": ?"(?:[^"\\]|\\.)*"')
# These models always answer with the picture itself, and refuse the parameter that asks for it.
ANSWERS_PICTURES = ("gpt-image", "chatgpt-image")


class UpstreamFault(EngineFault):
    """The upstream did not answer, or not as it should."""

    status = 502
    code = "upstream_error"


class RemoteEngine(Engine):
    """One model of one upstream."""

    def __init__(self, launch: Launch, app: EngineApp) -> None:
        super().__init__(launch, app)
        options = Options(launch.options)
        self.url = checked_url(options.take("url", "") or launch.model, "https://host/v1")
        self.remote_model = options.take("remote_model", "") or launch.served_name
        key_env, key_header = options.take("key_env", ""), options.take("key_header", "authorization")
        self.headers = checked_headers(options.take("headers", {}))
        self.timeout_s = options.take("timeout_s", 600.0)
        self.verify = options.take("verify", True)
        options.close()
        if self.timeout_s <= 0:
            raise ValueError("option 'timeout_s' must be positive")
        self.key = os.environ.get(key_env, "").strip() if key_env else ""
        if key_env and not self.key:
            raise ValueError(f"the environment variable {key_env}, which should hold the key, is empty")
        if self.key:
            bearer = key_header.lower() == "authorization"
            self.headers[key_header] = f"Bearer {self.key}" if bearer else self.key
        self.our_name = b'"model":' + encoding.dumps(app.served_name)
        self.host = urlsplit(self.url).netloc

    def load(self) -> None:
        """Nothing to load: the weights lie elsewhere."""

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        self.client = httpx2.AsyncClient(
            headers=self.headers,
            verify=self.verify,
            timeout=httpx2.Timeout(self.timeout_s, connect=CONNECT_S, pool=None),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
        )
        return {("POST", f"/v1/{endpoint}"): partial(self.forward, endpoint) for endpoint in ENDPOINTS}

    def details(self) -> Mapping[str, Any]:
        return {"upstream": self.host, "remote_model": self.remote_model}

    async def forward(self, endpoint: str, call: Call) -> Reply | Stream:
        body = call.json()
        self.app.check_model(Fields(body))
        request = await asyncio.to_thread(self.request, endpoint, body)
        call.run.report(0, stage="upstream")
        try:
            response = await self.client.send(request, stream=True)
        except httpx2.HTTPError as error:
            raise self.fault(error) from error
        media = response.headers.get("content-type", JSON)
        if response.status_code == 200 and media.startswith(EVENTS):
            return Stream(self.events(response))
        if response.status_code == 200 and endpoint == "audio/speech" and not media.startswith(JSON):
            return Stream(self.pieces(response), media)
        try:
            return await self.whole(endpoint, response, media)
        except httpx2.HTTPError as error:
            raise self.fault(error) from error
        finally:
            await response.aclose()

    def request(self, endpoint: str, body: dict[str, Any]) -> httpx2.Request:
        body = {**body, "model": self.remote_model}
        if endpoint.startswith("images/"):
            body["response_format"] = "b64_json"
            if self.remote_model.startswith(ANSWERS_PICTURES):
                del body["response_format"]
        address = f"{self.url}/{endpoint}"
        if endpoint in FORMS:
            form = form_of(body, FORMS[endpoint], self.launch.media)
            return self.client.build_request("POST", address, data=form.fields, files=form.files)
        content = encoding.dumps(embedded(body, self.launch.media))
        return self.client.build_request("POST", address, content=content, headers={"content-type": JSON})

    async def whole(self, endpoint: str, response: httpx2.Response, media: str) -> Reply:
        if response.status_code != 200:
            return await self.refusal(response)
        raw = await self.content(response)
        if not media.startswith(JSON):
            return Reply(raw, media=media)
        try:
            answer = encoding.loads(raw)
        except ValueError as error:
            raise UpstreamFault(f"{self.host} answered with something that is not JSON.") from error
        if isinstance(answer, dict):
            if isinstance(answer.get("model"), str):
                answer["model"] = self.app.served_name
            if endpoint.startswith("images/") and not has_pictures(answer):
                raise UpstreamFault(f"{self.host} answered with links in place of pictures.")
        return Reply.json(answer)

    async def content(self, response: httpx2.Response) -> bytes:
        """The body, read as long as it is no longer than an answer may be. Raises UpstreamFault."""
        parts, size = [], 0
        async for part in response.aiter_bytes():
            parts.append(part)
            size += len(part)
            self.check_size(size)
        return b"".join(parts)

    def check_size(self, size: int) -> None:
        if size > MOST_BYTES:
            raise UpstreamFault(f"{self.host} answered with more than {MOST_BYTES} bytes.")

    async def refusal(self, response: httpx2.Response) -> Reply:
        """The upstream's error as it is, if its caller can do something about it."""
        status = response.status_code
        if status in (401, 403):
            raise UpstreamFault(f"{self.host} refused our key.", code="upstream_refused_key")
        if status < 400:
            raise UpstreamFault(f"{self.host} answered with status {status}.")
        raw = b""
        async for piece in response.aiter_bytes():
            raw += piece
            if len(raw) >= MOST_ERROR:
                break
        kept = {name: response.headers[name] for name in ("retry-after",) if name in response.headers}
        return Reply(encoding.dumps(self.error_of(raw[:MOST_ERROR], status)), status, headers=kept)

    def error_of(self, raw: bytes, status: int) -> dict[str, Any]:
        """OpenAI's error object of an upstream's answer; one of our own where it has none."""
        text = raw.decode("utf-8", "replace")
        try:
            error = encoding.loads(self.without_key(text).encode())["error"]
            message = error["message"] if isinstance(error, dict) else error
        except (ValueError, TypeError, KeyError):
            error, message = {}, None
        if not isinstance(message, str):
            message = f"{self.host} answered with status {status}."
        given = error if isinstance(error, dict) else {}
        kind = given.get("type") or ("invalid_request_error" if status < 500 else "server_error")
        return {
            "error": {
                "message": message,
                "type": kind,
                "param": given.get("param"),
                "code": given.get("code"),
            }
        }

    def without_key(self, text: str) -> str:
        return without_key(text, self.key)

    def fault(self, error: Exception) -> UpstreamFault:
        if isinstance(error, httpx2.TimeoutException):
            return UpstreamFault(f"{self.host} did not answer in time ({type(error).__name__}).")
        return UpstreamFault(self.without_key(f"{self.host} cannot be used: {type(error).__name__}: {error}"))

    async def pieces(self, response: httpx2.Response) -> AsyncGenerator[bytes]:
        """The bytes as they come. Leaving the iterator closes the connection to the upstream."""
        try:
            async for piece in response.aiter_bytes():
                yield piece
        except httpx2.HTTPError as error:
            raise self.fault(error) from error
        finally:
            await response.aclose()

    async def events(self, response: httpx2.Response) -> AsyncGenerator[bytes]:
        """Whole events as they come, with our name of the model."""
        cutter = EventCutter()
        async with aclosing(self.pieces(response)) as pieces:
            async for piece in pieces:
                events = cutter.push(piece)
                self.check_size(len(cutter))
                if events:
                    yield b"".join(self.ours(event) + b"\n\n" for event in EVENT_END.split(events) if event)
        # An end without its empty line, which the replica forgives; or half an event, which it does not.
        if cutter.rest():
            yield self.ours(cutter.rest())

    def ours(self, event: bytes) -> bytes:
        """An event with our name of the model."""
        return MODEL.sub(lambda _: self.our_name, event, count=1)


def has_pictures(answer: Mapping[str, Any]) -> bool:
    data = answer.get("data")
    return isinstance(data, list) and all(isinstance(each, dict) and each.get("b64_json") for each in data)


def checked_headers(headers: dict[str, Any]) -> dict[str, str]:
    for name, value in headers.items():
        if not isinstance(value, str) or not (name + value).isprintable():
            raise ValueError(f"option 'headers': {name!r} must be a line of text")
        if name.lower() in KEY_HEADERS:
            raise ValueError(
                f"option 'headers': {name!r} is a secret; put it into a variable and name that in 'key_env'"
            )
    return dict(headers)


if __name__ == "__main__":
    main(RemoteEngine, "workers.engines.remote")
