"""ComfyUI's HTTP interface: one method for each route we use.

Owns addresses, time-outs and what a failure of the server becomes. Must not know requests of ours.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote, urlsplit

import aiohttp

from workers.engines import encoding
from workers.engines.failures import EngineFault

CONNECT_S = 10.0
ANSWER_S = 60.0
MOST_PICTURE = 256 * 1024 * 1024
MOST_SHOWN = 500
FOLDER = "inferq"  # of uploads, below the server's input folder
BEAT_S = 30.0


class ComfyFault(EngineFault):
    """ComfyUI did not answer, or not as it should. The job may be tried again."""

    status = 502
    code = "comfyui_error"


class Refused(Exception):
    """The server's answer to a prompt that it does not run."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        super().__init__("refused")
        self.answer = answer


@dataclass(frozen=True)
class Standing:
    """Where prompts are now, by id."""

    running: frozenset[str]
    pending: frozenset[str]

    def has(self, prompt_id: str) -> bool:
        return prompt_id in self.running or prompt_id in self.pending


class Server:
    """One ComfyUI. Every method raises ComfyFault where it does not answer as it should."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.host = urlsplit(url).netloc
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=ANSWER_S)
        self.session = aiohttp.ClientSession(
            timeout=timeout,
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            json_serialize=lambda value: encoding.dumps(value).decode(),
        )
        self._cancels_jobs = True

    async def close(self) -> None:
        await self.session.close()

    async def call(self, method: str, path: str, **more: Any) -> tuple[int, bytes]:
        """Status and body. A redirect is not followed: it would take callers' pictures elsewhere."""
        try:
            address = f"{self.url}{path}"
            async with self.session.request(method, address, allow_redirects=False, **more) as response:
                return response.status, await bounded(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self.fault(error) from error

    async def ask(self, method: str, path: str, **more: Any) -> Any:
        """The JSON of a good answer."""
        status, raw = await self.call(method, path, **more)
        if status != 200:
            raise ComfyFault(f"ComfyUI at {self.host} answered {path} with status {status}.")
        try:
            return json.loads(raw) if raw else {}
        except ValueError as error:
            raise ComfyFault(f"ComfyUI at {self.host} answered {path} with no JSON.") from error

    def fault(self, error: Exception) -> ComfyFault:
        return ComfyFault(f"ComfyUI at {self.host} does not answer: {str(error) or type(error).__name__}.")

    async def stats(self, timeout_s: float) -> dict[str, Any]:
        found = await self.ask("GET", "/system_stats", timeout=aiohttp.ClientTimeout(total=timeout_s))
        if not isinstance(found, dict) or not isinstance(found.get("system"), dict):
            raise ComfyFault(f"{self.host} is no ComfyUI.")
        return found

    async def classes(self) -> dict[str, Any]:
        return cast("dict[str, Any]", await self.ask("GET", "/object_info"))

    async def upload(self, name: str, content: bytes, media: str) -> str:
        """Store an input picture; the name that a node's input gets, which the server may have changed."""
        form = aiohttp.FormData()
        form.add_field("image", content, filename=name, content_type=media)
        form.add_field("type", "input")
        form.add_field("subfolder", FOLDER)
        stored = await self.ask("POST", "/upload/image", data=form)
        folder = stored.get("subfolder")
        return f"{folder}/{stored['name']}" if folder else str(stored["name"])

    async def submit(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Queue a prompt. Raises Refused with the server's reasons."""
        status, raw = await self.call("POST", "/prompt", json=body)
        try:
            answer = json.loads(raw)
        except ValueError:
            answer = None
        if status == 400 and isinstance(answer, dict):
            raise Refused(answer)
        if status != 200 or not isinstance(answer, dict):
            shown = raw[:MOST_SHOWN].decode("utf-8", "replace")
            raise ComfyFault(f"ComfyUI at {self.host} answered a prompt with status {status}: {shown}")
        return answer

    async def standing(self) -> Standing:
        queue = await self.ask("GET", "/queue")
        return Standing(ids(queue["queue_running"]), ids(queue["queue_pending"]))

    async def history(self, prompt_id: str) -> dict[str, Any] | None:
        """What a prompt came to; None while it waits or runs, and after a restart."""
        entry = (await self.ask("GET", f"/history/{quote(prompt_id)}")).get(prompt_id)
        return entry if isinstance(entry, dict) else None

    async def forget(self, prompt_id: str) -> None:
        """Remove what an earlier attempt of the same id came to."""
        await self.ask("POST", "/history", json={"delete": [prompt_id]})

    async def view(self, picture: Mapping[str, Any]) -> bytes:
        """The bytes of an output."""
        named = {name: str(picture.get(name, "")) for name in ("filename", "subfolder", "type")}
        status, raw = await self.call("GET", "/view", params=named)
        if status != 200:
            raise ComfyFault(f"ComfyUI has no picture {named['filename']!r} any more (status {status}).")
        return raw

    async def cancel(self, prompt_id: str) -> None:
        """End this prompt and no other, whether it waits or runs. One that is not there is left alone."""
        if self._cancels_jobs:
            status, _ = await self.call("POST", f"/api/jobs/{quote(prompt_id)}/cancel")
            if status == 200:
                return
            self._cancels_jobs = status not in (404, 405)
        await self.ask("POST", "/queue", json={"delete": [prompt_id]})
        # Old servers interrupt whatever runs, so it must be known to be ours.
        if prompt_id in (await self.standing()).running:
            await self.ask("POST", "/interrupt", json={"prompt_id": prompt_id})

    async def free(self) -> None:
        """Ask for the memory of the models back; done between prompts."""
        await self.ask("POST", "/free", json={"unload_models": True, "free_memory": True})

    async def listen(self, client_id: str) -> aiohttp.ClientWebSocketResponse:
        """A websocket that hears of the prompts of one client id."""
        try:
            socket = await self.session.ws_connect(
                f"{self.url}/ws", params={"clientId": client_id}, heartbeat=BEAT_S, max_msg_size=MOST_PICTURE
            )
            await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self.fault(error) from error
        return socket


async def bounded(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > MOST_PICTURE:
            raise aiohttp.ClientPayloadError(f"an answer of more than {MOST_PICTURE} bytes")
        parts.append(part)
    return b"".join(parts)


def ids(items: Any) -> frozenset[str]:
    return frozenset(str(item[1]) for item in items)


async def until_up(server: Server, pause_s: float) -> dict[str, Any]:
    """Wait for the server as long as it takes."""
    while True:
        try:
            return await server.stats(CONNECT_S)
        except ComfyFault:
            await asyncio.sleep(pause_s)
