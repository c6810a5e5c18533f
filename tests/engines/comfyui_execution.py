"""One prompt while it runs on the double of ComfyUI: its nodes in order, and what the websocket hears of them."""

import asyncio
import hashlib
import io
import json
import struct
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.engines.comfyui_nodes import CLASSES, Graph, Latent, loaded, sampled, upstream


class Interrupted(Exception):
    """Somebody ended the prompt."""


@dataclass
class Item:
    """One prompt in the queue."""

    number: int
    id: str
    graph: Graph
    extra: dict[str, Any]
    outputs: list[str]
    messages: list[Any] = field(default_factory=list)

    def row(self) -> list[Any]:
        return [self.number, self.id, self.graph, self.extra, self.outputs]


class Execution:
    """One prompt while it runs."""

    def __init__(self, double: Any, item: Item) -> None:
        self.double, self.item, self.client = double, item, item.extra["client_id"]
        self.made: dict[str, tuple[Any, ...]] = {}
        self.shown: dict[str, Any] = {}
        self.cache: dict[str, Any] = {}

    async def say(self, kind: str, **data: Any) -> None:
        data["prompt_id"] = self.item.id
        if kind.startswith("execution"):
            self.item.messages.append([kind, data])
        everybody = kind == "execution_interrupted"
        await self.double.tell(kind, data, None if everybody else self.client)

    async def run(self) -> tuple[dict[str, Any], str]:
        order = list(
            dict.fromkeys(n for output in self.item.outputs for n in upstream(self.item.graph, output))
        )
        signs = {name: self.sign(name) for name in order}
        known = self.double.state.cache
        await self.say("execution_start")
        await self.say("execution_cached", nodes=[name for name in order if signs[name] in known])
        node = ""
        try:
            for node in order:
                if signs[node] in known:
                    self.made[node], shown = known[signs[node]]
                else:
                    await self.say("executing", node=node, display_node=node)
                    await self.state(node, 0, 1)
                    shown = await self.execute(node)
                    await self.state(node, 1, 1)
                self.cache[signs[node]] = (self.made[node], shown)
                if shown:
                    self.shown[node] = shown
                    await self.say("executed", node=node, display_node=node, output=shown)
        except Interrupted:
            await self.say("execution_interrupted", node_id=node, node_type=self.kind(node), executed=[])
            return self.shown, "error"
        except Exception as error:  # noqa: BLE001 - as the real one does
            facts = {"exception_message": str(error), "exception_type": type(error).__name__, "traceback": []}
            await self.say("execution_error", node_id=node, node_type=self.kind(node), **facts)
            return self.shown, "error"
        finally:
            self.double.state.cache = self.cache
        await self.say("execution_success")
        return self.shown, "success"

    def kind(self, name: str) -> str:
        return str(self.item.graph[name]["class_type"])

    def sign(self, name: str) -> str:
        """The same for a node whose inputs are all the same."""
        node = self.item.graph[name]
        inputs = [
            [key, [self.sign(value[0]), value[1]] if isinstance(value, list) else value]
            for key, value in sorted(node["inputs"].items())
        ]
        return hashlib.sha256(json.dumps([node["class_type"], inputs]).encode()).hexdigest()

    async def state(self, node: str, value: float, most: float) -> None:
        state = {"value": value, "max": most, "state": "running", "node_id": node, "prompt_id": self.item.id}
        await self.say("progress_state", nodes={node: state})

    async def execute(self, name: str) -> Any:
        await asyncio.sleep(0)
        self.check()
        kind = self.kind(name)
        if kind in self.double.failing:
            raise RuntimeError("CUDA out of memory")
        inputs = {
            key: self.made[value[0]][value[1]] if isinstance(value, list) else value
            for key, value in self.item.graph[name]["inputs"].items()
        }
        if kind == "KSampler":
            self.made[name] = (await self.sample(name, inputs),)
        elif CLASSES[kind].is_output:
            self.made[name] = (inputs["images"],)
            return {"images": [self.save(kind, place, each) for place, each in enumerate(inputs["images"])]}
        else:
            self.made[name] = self.compute(kind, inputs)
        return None

    def check(self) -> None:
        if self.double.state.interrupt:
            self.double.state.interrupt = False
            raise Interrupted

    def compute(self, kind: str, inputs: dict[str, Any]) -> tuple[Any, ...]:
        match kind:
            case "CheckpointLoaderSimple":
                made: tuple[Any, ...] = (inputs["ckpt_name"],) * 3
            case "CLIPTextEncode":
                made = ((inputs["clip"], inputs["text"]),)
            case "JoinTexts":
                made = (" ".join(inputs["texts"]),)
            case "EmptyLatentImage":
                made = (Latent(inputs["width"] // 8 * 8, inputs["height"] // 8 * 8, inputs["batch_size"]),)
            case "LoadImage":
                picture, mask = loaded(self.double.inputs / inputs["image"])
                made = ([picture], mask)
            case "VAEEncode":
                (picture,) = inputs["pixels"]
                made = (Latent(*picture.size, base=picture),)
            case "SetLatentNoiseMask":
                given = inputs["samples"]
                made = (Latent(given.width, given.height, base=given.base, mask=inputs["mask"]),)
            case _:
                made = (inputs["samples"].pictures,)
        return made

    async def sample(self, name: str, inputs: dict[str, Any]) -> Latent:
        latent, steps = inputs["latent_image"], inputs["steps"]
        facts = tuple(inputs[key] for key in ("model", "seed", "steps", "cfg", "sampler_name", "scheduler"))
        facts += (inputs["positive"], inputs["negative"])
        pictures = [sampled(latent, place, facts, inputs["denoise"]) for place in range(latent.batch)]
        for step in range(1, steps + 1):
            await asyncio.sleep(self.double.step_s)
            self.check()
            await self.say("progress", node=name, value=step, max=steps)
            await self.state(name, step, steps)
            if self.item.extra.get("preview_method") == "auto":
                await self.preview(name, pictures[0])
        return Latent(latent.width, latent.height, latent.batch, pictures=pictures)

    async def preview(self, name: str, picture: Image.Image) -> None:
        buffer = io.BytesIO()
        picture.resize((picture.width // 2, picture.height // 2)).save(buffer, "JPEG")
        if self.double.old_previews:
            head = struct.pack(">II", 1, 1)
        else:
            facts = json.dumps({"node_id": name, "prompt_id": self.item.id, "image_type": "image/jpeg"})
            head = struct.pack(">II", 4, len(facts)) + facts.encode()
        await self.double.send(self.client, head + buffer.getvalue())

    def save(self, kind: str, place: int, picture: Image.Image) -> dict[str, str]:
        """As a PNG with the graph in it, as the real one does."""
        where = "output" if kind == "SaveImage" else "temp"
        text = PngInfo()
        text.add_text("prompt", json.dumps(self.item.graph))
        name = f"{self.item.number:05}_{place:02}_.png"
        picture.save(self.double.results[where] / name, pnginfo=text)
        return {"filename": name, "subfolder": "", "type": where}
