"""A ComfyUI for tests, the double or the real one that INFERQ_TEST_COMFYUI names, and the workflows they use."""

import base64
import io
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from PIL import Image

from tests.engines.comfyui_double import Double, comfyui
from tests.engines.process import ROOT, EngineProcess

EXAMPLE = ROOT / "examples" / "comfyui"
REAL = os.environ.get("INFERQ_TEST_COMFYUI", "").rstrip("/")


@dataclass
class Comfy:
    """Where a ComfyUI answers; `double` is None where it is a real one."""

    url: str
    double: Double | None
    checkpoint: str

    def faulty(self) -> Double:
        """The double, for what a real one does not do on demand."""
        if self.double is None:
            pytest.skip("only the double does this on demand")
        return self.double

    def graph(self, **inputs: Any) -> dict[str, Any]:
        """The example's workflow with other values of its sampler."""
        graph = json.loads((EXAMPLE / "txt2img_sd15.json").read_bytes())
        graph["ckpt"]["inputs"]["ckpt_name"] = self.checkpoint
        graph["sampler"]["inputs"] |= inputs
        return dict(graph)

    def options(self, **more: Any) -> dict[str, Any]:
        """The example's options for this server."""
        return {**example_options(), "url": self.url, "workflow": self.graph()} | more

    def ask(self, method: str, path: str, **more: Any) -> Any:
        answer = httpx2.request(method, f"{self.url}{path}", **more)
        assert answer.status_code == 200, answer.text
        return answer.json() if answer.content else None

    def somebody_elses(self, steps: int) -> str:
        """Another client's prompt, which must come to its end whatever we do."""
        name = str(uuid.uuid4())
        graph = self.graph(steps=steps, seed=int.from_bytes(os.urandom(4)))
        self.ask("POST", "/prompt", json={"prompt": graph, "client_id": "else", "prompt_id": name})
        return name

    def place(self, prompt_id: str) -> str:
        """Where a prompt is: pending, running, or what became of it."""
        queue = self.ask("GET", "/queue")
        for place in ("pending", "running"):
            if prompt_id in [item[1] for item in queue[f"queue_{place}"]]:
                return place
        entry = self.ask("GET", f"/history/{prompt_id}").get(prompt_id)
        return str(entry["status"]["status_str"]) if entry else "unknown"


def example_options() -> dict[str, Any]:
    config = yaml.safe_load((EXAMPLE / "config.yaml").read_text())
    return dict(config["models"]["sd15-comfy"]["options"])


def begins_with_a_picture(comfy: Comfy, *, mask: bool = False) -> dict[str, Any]:
    """Options for a workflow that paints over a picture."""
    graph = comfy.graph(denoise=0.5)
    del graph["size"]
    graph["load"] = {"class_type": "LoadImage", "inputs": {"image": "of-the-author.png"}}
    graph["encode"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["load", 0], "vae": ["ckpt", 2]}}
    graph["sampler"]["inputs"]["latent_image"] = ["encode", 0]
    parameters = {
        "prompt": "positive.text",
        "seed": "sampler.seed",
        "steps": "sampler.steps",
        "denoise_strength": "sampler.denoise",
        "image": {"node": "load", "input": "image", "upload": "image"},
    }
    if mask:
        graph["mask"] = {"class_type": "LoadImage", "inputs": {"image": "of-the-author.png"}}
        inputs = {"samples": ["encode", 0], "mask": ["mask", 1]}
        graph["masked"] = {"class_type": "SetLatentNoiseMask", "inputs": inputs}
        graph["sampler"]["inputs"]["latent_image"] = ["masked", 0]
        parameters["mask"] = {"node": "mask", "input": "image", "upload": "mask"}
    return {"url": comfy.url, "workflow": graph, "parameters": parameters}


@contextmanager
def bench() -> Iterator[Comfy]:
    if REAL:
        info = httpx2.get(f"{REAL}/object_info/CheckpointLoaderSimple").json()["CheckpointLoaderSimple"]
        yield Comfy(REAL, None, info["input"]["required"]["ckpt_name"][0][0])
        return
    with comfyui() as double:
        yield Comfy(double.url, double, "v1-5-pruned-emaonly-fp16.safetensors")


def picture_of(text: str) -> Image.Image:
    picture = Image.open(io.BytesIO(base64.b64decode(text)))
    picture.load()
    return picture


def saved(picture: Image.Image, path: Path) -> str:
    """The `file:` URL of a picture."""
    picture.save(path, "PNG")
    return path.as_uri()


def events(engine: EngineProcess, path: str, body: dict[str, Any]) -> list[Any]:
    """The events of a stream of pictures: each has a line with its name, which its `type` repeats."""
    with engine.client() as client:
        answer = client.post(path, json=body | {"stream": True})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    *blocks, done, nothing = answer.text.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    found = []
    for block in blocks:
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found
