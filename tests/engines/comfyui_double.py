"""A small ComfyUI for tests: its HTTP and websocket interface, its queue of one at a time, its history in memory.

It also judges its client: every request that a careful client would not send becomes a line in `violations`.
Somebody else's requests bear a client id that begins with `else`; those are not judged.
"""

import asyncio
import json
import tempfile
import threading
import uuid
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web
from PIL import Image

from tests.engines.comfyui_execution import Execution, Item
from tests.engines.comfyui_nodes import CLASSES, Graph, object_info, validate

PROMPT_KEYS = {"prompt", "client_id", "prompt_id", "extra_data"}
ROUTES = (
    *(("GET", "/ws"), ("POST", "/prompt"), ("GET", "/queue"), ("POST", "/queue"), ("GET", "/history/{id}")),
    *(("POST", "/history"), ("GET", "/view"), ("POST", "/upload/image"), ("POST", "/interrupt")),
    *(("POST", "/free"), ("GET", "/system_stats"), ("GET", "/object_info")),
)


@dataclass
class State:
    """What a restart forgets."""

    pending: list[Item] = field(default_factory=list)
    running: Item | None = None
    history: dict[str, Any] = field(default_factory=dict)
    cache: dict[str, Any] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    interrupt: bool = False


class Double:
    """Settings may be changed while it runs.

    `step_s` is how long a step takes, `cancels_jobs` whether it is new enough for that, `old_previews` which kind it
    sends; `deaf` refuses websockets, `mute` says nothing on them, `refuses` fails on every prompt, `ignores_ids` gives
    prompts ids of its own; nodes of the classes in `failing` fail.
    """

    def __init__(self, folder: Path) -> None:
        self.inputs, self.results = folder / "input", {"output": folder / "output", "temp": folder / "temp"}
        for each in (self.inputs, *self.results.values()):
            each.mkdir()
        Image.new("RGB", (64, 64), "red").save(self.inputs / "example.png")
        self.violations: list[str] = []
        self.graphs: list[Graph] = []
        self.freed: list[dict[str, Any]] = []
        self.sockets: dict[str, web.WebSocketResponse] = {}
        self.flags: dict[str, dict[str, Any]] = {}
        self.uploaded: set[str] = set()
        self.numbers = 0
        self.state = State()
        self.reset()

    def reset(self) -> None:
        self.step_s, self.cancels_jobs, self.old_previews = 0.01, True, False
        self.deaf = self.mute = self.refuses = self.ignores_ids = False
        self.failing: set[str] = set()

    # Called by tests, from another thread.

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def drop_sockets(self) -> None:
        self.do(self._drop())

    def restart(self) -> None:
        self.do(self._restart())

    def stop(self) -> None:
        self.do(self._stop())

    def start(self) -> None:
        self.do(self._start())

    async def _drop(self) -> None:
        for socket in list(self.sockets.values()):
            await socket.close(code=WSCloseCode.GOING_AWAY)
        self.sockets.clear()

    async def _restart(self) -> None:
        await self._stop()
        await self._start()

    async def _stop(self) -> None:
        self.worker.cancel()
        await asyncio.wait((self.worker,))
        await self._drop()
        await self.runner.cleanup()

    async def _start(self, port: int | None = None) -> None:
        self.state = State()
        self.worker = asyncio.create_task(self._work())
        app = web.Application(client_max_size=2**28, middlewares=[self._judge_route])
        for method, path in ROUTES:
            name = path.strip("/").split("/{")[0].replace("/", "_")
            app.router.add_route(method, path, getattr(self, f"{method.lower()}_{name}"))
        app.router.add_post("/api/jobs/{id}/cancel", self.post_cancel)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", self.port if port is None else port)
        await site.start()
        self.port = self.runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"

    # Judging the client.

    def wrong(self, what: str) -> None:
        self.violations.append(what)

    @web.middleware
    async def _judge_route(self, request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.status in (404, 405) and not request.path.startswith("/api/jobs/"):
                self.wrong(f"no route: {request.method} {request.path}")
            raise

    def judge_prompt(self, body: dict[str, Any]) -> None:
        client = body.get("client_id")
        if isinstance(client, str) and client.startswith("else"):
            return
        if set(body) - PROMPT_KEYS:
            self.wrong(f"prompt: unknown keys {set(body) - PROMPT_KEYS}")
        if client not in self.sockets:
            self.wrong("prompt: no websocket was open under its client id")
        if client in self.sockets and "supports_preview_metadata" not in self.flags.get(client, {}):
            self.wrong("prompt: no feature flags were sent first")
        if not canonical(body.get("prompt_id")):
            self.wrong(f"prompt: no canonical id: {body.get('prompt_id')}")
        if body.get("prompt_id") in self.state.history:
            self.wrong("prompt: an id that is in the history")
        for name, node in body["prompt"].items():
            for key, value in node["inputs"].items():
                self.judge_input(body["prompt"], name, key, value)

    def judge_input(self, graph: Graph, name: str, key: str, value: Any) -> None:
        kind = graph[name]["class_type"]
        if kind in CLASSES and key not in CLASSES[kind].required:
            self.wrong(f"prompt: {name} has no input {key}")
        if isinstance(value, list) and (len(value) != 2 or value[0] not in graph):
            self.wrong(f"prompt: {name}.{key} is a list that is no link")
        if isinstance(value, dict) and set(value) != {"__value__"}:
            self.wrong(f"prompt: {name}.{key} is an object")
        if kind == "LoadImage" and value not in {*self.uploaded, "example.png"}:
            self.wrong(f"prompt: {value} was not uploaded")

    # Routes.

    async def get_ws(self, request: web.Request) -> web.StreamResponse:
        if self.deaf:
            raise web.HTTPServiceUnavailable
        if set(request.query) != {"clientId"}:
            self.wrong(f"ws: query {dict(request.query)}")
        client = request.query.get("clientId", "") or uuid.uuid4().hex
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets[client] = socket
        await self.tell("status", {"status": self.remaining(), "sid": client}, client)
        first = True
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            value = json.loads(message.data)
            if not first or value.get("type") != "feature_flags":
                self.wrong(f"ws: a message {value}")
            first = False
            self.flags[client] = value["data"]
            await self.tell("feature_flags", {"supports_preview_metadata": True}, client)
        if self.sockets.get(client) is socket:
            del self.sockets[client]
        return socket

    async def post_prompt(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.refuses:
            return web.Response(status=500, text="<html>internal error</html>")
        self.judge_prompt(body)
        prompt_id = str(uuid.uuid4()) if self.ignores_ids else body.get("prompt_id") or str(uuid.uuid4())
        if not canonical(prompt_id):
            error = {"type": "invalid_prompt_id", "message": "prompt_id must be a valid UUID"}
            return web.json_response(
                {"error": error | {"details": "", "extra_info": {}}, "node_errors": {}}, status=400
            )
        if prompt_id in self.ids():
            self.wrong("prompt: an id that is in the queue")
        self.graphs.append(json.loads(json.dumps(body["prompt"])))
        error, node_errors, outputs = validate(body["prompt"], self.inputs)
        if error:
            return web.json_response({"error": error, "node_errors": node_errors}, status=400)
        extra = {**body.get("extra_data", {}), "client_id": body.get("client_id")}
        self.numbers += 1
        self.state.pending.append(Item(self.numbers, prompt_id, body["prompt"], extra, outputs))
        self.state.arrived.set()
        await self.tell("status", {"status": self.remaining()})
        answer = {"prompt_id": prompt_id, "number": self.numbers, "node_errors": node_errors}
        return web.json_response(answer)

    def ids(self) -> list[str]:
        running = [self.state.running] if self.state.running else []
        return [item.id for item in (*running, *self.state.pending)]

    async def get_queue(self, request: web.Request) -> web.Response:
        running = [self.state.running.row()] if self.state.running else []
        pending = [item.row() for item in self.state.pending]
        return web.json_response({"queue_running": running, "queue_pending": pending})

    async def post_queue(self, request: web.Request) -> web.Response:
        body = await request.json()
        if set(body) != {"delete"}:
            self.wrong(f"queue: {body}")
        for each in body.get("delete", ()):
            self.state.deleted.add(each)
            self.dequeue(each)
        return web.Response()

    def dequeue(self, prompt_id: str) -> bool:
        before = len(self.state.pending)
        self.state.pending = [item for item in self.state.pending if item.id != prompt_id]
        return len(self.state.pending) < before

    async def get_history(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        found = self.state.history.get(name)
        return web.json_response({name: found} if found else {})

    async def post_history(self, request: web.Request) -> web.Response:
        body = await request.json()
        if set(body) != {"delete"}:
            self.wrong(f"history: {body}")
        for each in body.get("delete", ()):
            self.state.history.pop(each, None)
        return web.Response()

    async def post_interrupt(self, request: web.Request) -> web.Response:
        raw = await request.text()
        wanted = json.loads(raw).get("prompt_id") if raw else None
        running = self.state.running
        if wanted is None:
            self.wrong("interrupt: of whatever runs")
            self.state.interrupt = True
        elif wanted not in self.state.deleted:
            self.wrong("interrupt: before the prompt was taken out of the queue")
        if running is None or running.id != wanted:
            self.wrong("interrupt: of a prompt that does not run")
        else:
            self.state.interrupt = True
        return web.Response()

    async def post_cancel(self, request: web.Request) -> web.Response:
        if not self.cancels_jobs:
            raise web.HTTPNotFound
        name = request.match_info["id"]
        running = self.state.running is not None and self.state.running.id == name
        self.state.interrupt = self.state.interrupt or running
        return web.json_response({"cancelled": self.dequeue(name) or running})

    async def post_free(self, request: web.Request) -> web.Response:
        body = await request.json()
        if set(body) - {"unload_models", "free_memory"}:
            self.wrong(f"free: {body}")
        self.freed.append(body)
        return web.Response()

    async def get_system_stats(self, request: web.Request) -> web.Response:
        device = {
            "name": "cuda:0 Fake",
            "type": "cuda",
            "index": 0,
            "vram_total": 8 << 30,
            "vram_free": 6 << 30,
        }
        return web.json_response({"system": {"comfyui_version": "0.0.double"}, "devices": [device]})

    async def get_object_info(self, request: web.Request) -> web.Response:
        return web.json_response(object_info())

    async def get_view(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        if set(query) != {"filename", "subfolder", "type"}:
            self.wrong(f"view: query {dict(query)}")
        path = self.results[query["type"]] / query.get("subfolder", "") / query["filename"]
        return web.FileResponse(path) if path.is_file() else web.Response(status=404)

    async def post_upload_image(self, request: web.Request) -> web.Response:
        form = await request.post()
        if set(form) - {"image", "type", "subfolder", "overwrite"} or form.get("type", "input") != "input":
            self.wrong(f"upload: fields {set(form)}")
        file = form["image"]
        if not isinstance(file, web.FileField):
            self.wrong("upload: no file")
            return web.Response(status=400)
        content, folder = file.file.read(), str(form.get("subfolder", ""))
        first = Path(file.filename)
        # As the real one renames a second file of the same name; here every file is, to find clients that guess.
        name = f"{first.stem} (1){first.suffix}"
        (self.inputs / folder).mkdir(exist_ok=True)
        (self.inputs / folder / name).write_bytes(content)
        self.uploaded.add(f"{folder}/{name}" if folder else name)
        return web.json_response({"name": name, "subfolder": folder, "type": "input"})

    # Running prompts.

    def remaining(self) -> dict[str, Any]:
        return {"exec_info": {"queue_remaining": len(self.ids())}}

    async def tell(self, kind: str, data: Any, client: str | None = None) -> None:
        for each in list(self.sockets) if client is None else [client]:
            await self.send(each, json.dumps({"type": kind, "data": data}))

    async def send(self, client: str, message: str | bytes) -> None:
        socket = self.sockets.get(client)
        if socket is None or socket.closed or self.mute:
            return
        try:
            await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
        except ConnectionError:
            self.sockets.pop(client, None)

    async def _work(self) -> None:
        while True:
            while not self.state.pending:
                self.state.arrived.clear()
                await self.state.arrived.wait()
            item = self.state.running = self.state.pending.pop(0)
            self.state.interrupt = False
            outputs, status = await Execution(self, item).run()
            self.state.running = None
            facts = {"status_str": status, "completed": status == "success", "messages": item.messages}
            self.state.history[item.id] = {
                "prompt": item.row(),
                "outputs": outputs,
                "status": facts,
                "meta": {},
            }
            await self.tell("executing", {"node": None, "prompt_id": item.id}, item.extra["client_id"])
            await self.tell("status", {"status": self.remaining()})


def canonical(value: Any) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False


@contextmanager
def comfyui() -> Iterator[Double]:
    """A double in a thread of its own, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="iq-comfy-") as folder:
        double = Double(Path(folder))
        double.loop = asyncio.new_event_loop()
        thread = threading.Thread(target=double.loop.run_forever, daemon=True)
        thread.start()
        double.do(double._start(port=0))
        try:
            yield double
        finally:
            double.stop()
            double.loop.call_soon_threadsafe(double.loop.stop)
            thread.join(5)
            double.loop.close()
