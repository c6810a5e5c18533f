"""The ComfyUI engine: a workflow on a ComfyUI server as an image model.

The workflow is the operator's, a file in ComfyUI's API format; callers give values for the inputs that `parameters`
names, and nothing else. One prompt runs at a time on a ComfyUI, so one or two slots are enough: jobs wait with us.
All options and their defaults stand in `read_options`. It runs in the gateway's environment.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.engines import encoding
from workers.engines.asgi import Call, EngineApp, Handler, Reply, Stream
from workers.engines.base import Engine, main
from workers.engines.comfy import prompt, workflow
from workers.engines.comfy.answers import Writer
from workers.engines.comfy.events import Ear, Pace, Progress
from workers.engines.comfy.pictures import Sent, Shown, sendable, shown
from workers.engines.comfy.request import Ask, Form, Limits, Reader
from workers.engines.comfy.server import ComfyFault, Server, until_up
from workers.engines.failures import EngineFault
from workers.engines.fields import Fields
from workers.engines.launch import Launch, Options, checked_url

LOOK_EVERY_S, LOOK_S = 2.0, 10.0
MISSES = 2  # looks without an answer after which the engine is not ready
FREE_S = 5.0
READY, UNREACHABLE = "ready", "unreachable"

Show = Callable[[int, bytes], None]


@dataclass(frozen=True)
class ComfyOptions:
    """All options, read."""

    url: str
    workflow: str | dict[str, Any]
    parameters: Mapping[str, Any]
    outputs: list[Any]
    silence_s: float
    limits: Limits
    keep_metadata: bool
    free_on_unload: bool


def read_options(launch: Launch) -> ComfyOptions:
    """Raises ValueError for an option that is unknown, of the wrong type or missing."""
    options = Options(launch.options)
    as_source = launch.model.startswith(("http://", "https://"))
    inline = isinstance(launch.options.get("workflow"), dict)
    found = ComfyOptions(
        url=checked_url(
            options.take("url", "") or (launch.model if as_source else ""), "http://127.0.0.1:8188"
        ),
        workflow=options.take("workflow", {} if inline else ""),
        parameters=options.take("parameters", {}),
        outputs=options.take("outputs", []),
        silence_s=options.take("timeout_s", 600.0),
        limits=Limits(
            pixels=options.take("max_pixels", 2048 * 2048),
            input_pixels=options.take("max_input_pixels", 4096 * 4096),
            steps=options.take("max_steps", 150),
            images=options.take("max_images", 10),
        ),
        keep_metadata=options.take("keep_metadata", False),
        free_on_unload=options.take("free_on_unload", True),
    )
    options.close()
    if not found.workflow:
        raise ValueError("option 'workflow' must name a file in ComfyUI's API format")
    if isinstance(found.workflow, str) and as_source and not Path(found.workflow).is_absolute():
        raise ValueError("option 'workflow' must be an absolute path where the model's source is an address")
    if found.silence_s <= 0:
        raise ValueError("option 'timeout_s' must be positive")
    return found


class ComfyEngine(Engine):
    """One workflow of one ComfyUI."""

    def __init__(self, launch: Launch, app: EngineApp) -> None:
        super().__init__(launch, app)
        self.options = read_options(launch)
        self.stats: dict[str, Any] = {}

    def load(self) -> None:
        asyncio.run(self._load())

    async def _load(self) -> None:
        """Wait for the server, then check the workflow against it."""
        options = self.options
        raw = workflow.read(options.workflow, self.launch.model)
        workflow.checked_graph(raw)
        server = Server(options.url)
        try:
            self.stats = await until_up(server, LOOK_EVERY_S)
            classes = await server.classes()
        finally:
            await server.close()
        self.workflow = workflow.build(raw, options.parameters, options.outputs, classes)
        self.reader = Reader(self.workflow, options.limits, self.launch.media)

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        self.server = Server(self.options.url)
        self.watching = asyncio.create_task(self._watch())
        return {("POST", "/v1/images/generations"): self.generate, ("POST", "/v1/images/edits"): self.edit}

    def unload(self) -> None:
        if self.options.free_on_unload:
            with contextlib.suppress(ComfyFault, TimeoutError):
                asyncio.run(self._free())

    async def _free(self) -> None:
        server = Server(self.options.url)
        try:
            async with asyncio.timeout(FREE_S):
                await server.free()
        finally:
            await server.close()

    async def _watch(self) -> None:
        """Keep `/health` true: without its server this engine answers nothing."""
        missed = 0
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                self.stats = await self.server.stats(LOOK_S)
                missed = 0
            except ComfyFault:
                missed += 1
            if self.app.status in (READY, UNREACHABLE):
                self.app.status = UNREACHABLE if missed >= MISSES else READY

    def details(self) -> Mapping[str, Any]:
        limits = self.options.limits
        return {
            "comfyui": self.server.host,
            "comfyui_version": self.stats.get("system", {}).get("comfyui_version"),
            "devices": [
                {name: device.get(name) for name in ("name", "vram_total", "vram_free")}
                for device in self.stats.get("devices") or ()
            ],
            "parameters": sorted(self.workflow.parameters),
            "limits": {"pixels": limits.pixels, "steps": limits.steps, "images": limits.images},
        }

    async def generate(self, call: Call) -> Reply | Stream:
        return await self.answer(call, "image_generation")

    async def edit(self, call: Call) -> Reply | Stream:
        return await self.answer(call, "image_edit")

    async def answer(self, call: Call, event: str) -> Reply | Stream:
        fields = Fields(call.json())
        self.app.check_model(fields)
        ask = self.reader.read(fields)
        pictures = await asyncio.to_thread(self.sendables, ask)
        writer = Writer(self.app.served_name, event, ask.seed)
        if ask.stream:
            return Stream(self.events(call, ask, pictures, writer))
        made = await self.paint(call, ask, pictures, lambda number, picture: None)
        return Reply(await asyncio.to_thread(writer.body, made))

    def sendables(self, ask: Ask) -> list[Sent]:
        most = self.options.limits.input_pixels
        return [sendable(each.path, each.param, each.kind, most) for each in ask.uploads]

    async def paint(self, call: Call, ask: Ask, pictures: list[Sent], show: Show) -> list[Shown]:
        """Hand over the pictures, run the prompt, and fetch what it made."""
        sources = dict(ask.sources)
        for upload, picture in zip(ask.uploads, pictures, strict=True):
            name = await self.server.upload(picture.name, picture.content, picture.media)
            for target in upload.targets:
                ask.graph[target.node]["inputs"][target.name] = name
                sources[target.node, target.name] = upload.param
        progress = Progress.of(ask.graph, call.run.report)
        progress.tell()
        previews = ask.previews if ask.stream else 0
        prompt_id = prompt.prompt_id_of(call.run.id)
        task = prompt.Task(prompt_id, ask.graph, sources, previews > 0, self.options.silence_s)
        outputs = await prompt.run(self.server, task, Ear(prompt_id, progress, Pace(previews), show))
        return [await self.fetched(each, ask.form) for each in self.chosen(outputs)]

    def chosen(self, outputs: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The pictures of a finished prompt. Raises ComfyFault where there are none."""
        wanted = self.workflow.outputs or sorted(outputs, key=lambda name: (len(name), name))
        found = [each for node in wanted for each in (outputs.get(node) or {}).get("images") or ()]
        saved = [each for each in found if each.get("type") == "output"]
        # What a node only previews is a step on the way, unless there is nothing else or it was named.
        found = found if self.workflow.outputs else saved or found
        if not found:
            raise ComfyFault("The workflow made no picture.", code="comfyui_no_picture")
        return found

    async def fetched(self, picture: Mapping[str, Any], form: Form) -> Shown:
        content = await self.server.view(picture)
        return await asyncio.to_thread(shown, content, form, keep_metadata=self.options.keep_metadata)

    async def events(
        self, call: Call, ask: Ask, pictures: list[Sent], writer: Writer
    ) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        painting = self.paint(
            call, ask, pictures, lambda number, picture: queue.put_nowait((number, picture))
        )
        work = asyncio.ensure_future(painting)
        work.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (preview := await queue.get()) is not None:
                number, picture = preview
                with contextlib.suppress(EngineFault):  # one that is broken spoils nothing
                    event = writer.partial(number, await asyncio.to_thread(shown, picture, ask.form))
                    yield event
            for place, made in enumerate(await work):
                yield writer.completed(place, made)
            yield encoding.DONE
        finally:
            work.cancel()
            await asyncio.wait((work,))  # until the server has let go of the prompt


if __name__ == "__main__":
    main(ComfyEngine, "workers.engines.comfyui")
