"""Fake nodes for the double of ComfyUI: their declarations, their validation, and what they compute.

A picture is real, and its pixels depend on everything that a sampler's picture depends on: seed, place in the batch,
texts, settings, and the picture it began with.
"""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

SAMPLERS = ["euler", "euler_ancestral", "dpmpp_2m", "ddim"]
SCHEDULERS = ["normal", "karras", "simple"]
CHECKPOINTS = ["v1-5-pruned-emaonly-fp16.safetensors", "other.safetensors"]
SIDE = {"default": 512, "min": 16, "max": 16384, "step": 8}


@dataclass
class Latent:
    width: int
    height: int
    batch: int = 1
    base: Image.Image | None = None
    mask: Image.Image | None = None
    pictures: list[Image.Image] = field(default_factory=list)


@dataclass(frozen=True)
class NodeClass:
    required: dict[str, list[Any]]
    outputs: list[str]
    is_output: bool = False

    def info(self, name: str) -> dict[str, Any]:
        order = {"required": list(self.required)}
        return {"input": {"required": self.required}, "input_order": order, "output": self.outputs} | {
            "output_node": self.is_output,
            "name": name,
            "display_name": name,
        }


CLASSES = {
    "CheckpointLoaderSimple": NodeClass({"ckpt_name": [CHECKPOINTS]}, ["MODEL", "CLIP", "VAE"]),
    "CLIPTextEncode": NodeClass(
        {"text": ["STRING", {"multiline": True}], "clip": ["CLIP"]}, ["CONDITIONING"]
    ),
    "JoinTexts": NodeClass({"texts": ["LIST"]}, ["STRING"]),
    "EmptyLatentImage": NodeClass(
        {
            "width": ["INT", SIDE],
            "height": ["INT", SIDE],
            "batch_size": ["INT", {"default": 1, "min": 1, "max": 4096}],
        },
        ["LATENT"],
    ),
    "LoadImage": NodeClass({"image": [["example.png"], {"image_upload": True}]}, ["IMAGE", "MASK"]),
    "VAEEncode": NodeClass({"pixels": ["IMAGE"], "vae": ["VAE"]}, ["LATENT"]),
    "SetLatentNoiseMask": NodeClass({"samples": ["LATENT"], "mask": ["MASK"]}, ["LATENT"]),
    "KSampler": NodeClass(
        {
            "model": ["MODEL"],
            "seed": ["INT", {"default": 0, "min": 0, "max": 2**64 - 1}],
            "steps": ["INT", {"default": 20, "min": 1, "max": 10000}],
            "cfg": ["FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1}],
            "sampler_name": [SAMPLERS],
            "scheduler": ["COMBO", {"options": SCHEDULERS}],
            "positive": ["CONDITIONING"],
            "negative": ["CONDITIONING"],
            "latent_image": ["LATENT"],
            "denoise": ["FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0}],
        },
        ["LATENT"],
    ),
    "VAEDecode": NodeClass({"samples": ["LATENT"], "vae": ["VAE"]}, ["IMAGE"]),
    "SaveImage": NodeClass({"images": ["IMAGE"], "filename_prefix": ["STRING", {}]}, ["IMAGE"], True),
    "PreviewImage": NodeClass({"images": ["IMAGE"]}, [], True),
}
Graph = dict[str, dict[str, Any]]
Step = Callable[[int, int, Image.Image], Any]


def object_info() -> dict[str, Any]:
    return {name: each.info(name) for name, each in CLASSES.items()}


def fault(kind: str, message: str, details: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": more}


def validate(graph: Graph, inputs: Path) -> tuple[dict[str, Any] | None, dict[str, Any], list[str]]:
    """The error, the errors by node, and the outputs that can run; unwraps list literals in place."""
    for name, node in graph.items():
        if node.get("class_type") not in CLASSES:
            message = f"Node '{node.get('class_type')}' not found. The custom node may not be installed."
            return fault("missing_node_type", message, f"Node ID '#{name}'"), {}, []
    outputs = [name for name, node in graph.items() if CLASSES[node["class_type"]].is_output]
    if not outputs:
        return fault("prompt_no_outputs", "Prompt has no outputs", ""), {}, []
    good, wrong = [], {}
    for output in outputs:
        failed = {
            name: errors for name in upstream(graph, output) if (errors := invalid(graph, name, inputs))
        }
        for name, errors in failed.items():
            kind = graph[name]["class_type"]
            entry = wrong.setdefault(name, {"errors": errors, "dependent_outputs": [], "class_type": kind})
            entry["dependent_outputs"].append(output)
        if not failed:
            good.append(output)
    if not good:
        return fault("prompt_outputs_failed_validation", "Prompt outputs failed validation", ""), wrong, []
    return None, wrong, good


def upstream(graph: Graph, name: str) -> list[str]:
    """A node and all it stands on, the first one first."""
    found: list[str] = []
    for value in graph[name]["inputs"].values():
        if isinstance(value, list) and value[0] in graph:
            found += [each for each in upstream(graph, value[0]) if each not in found]
    return [*found, name]


def invalid(graph: Graph, name: str, inputs: Path) -> list[dict[str, Any]]:
    node, errors = graph[name], []
    for key, declared in CLASSES[node["class_type"]].required.items():
        if key not in node["inputs"]:
            errors.append(fault("required_input_missing", "Required input is missing", key, input_name=key))
            continue
        value = node["inputs"][key]
        if isinstance(value, dict) and "__value__" in value:
            value = node["inputs"][key] = tuple(value["__value__"])
        problem = wrong_value(graph, key, value, declared, inputs)
        if problem:
            kind, message, details = problem
            errors.append(fault(kind, message, details, input_name=key, received_value=value))
    return errors


def wrong_value(
    graph: Graph, key: str, value: Any, declared: list[Any], inputs: Path
) -> tuple[str, str, str] | None:
    kind, settings = declared[0], declared[1] if len(declared) > 1 else {}
    if isinstance(value, list):
        return wrong_link(graph, key, value, kind)
    if settings.get("image_upload"):
        missing = not (inputs / value).is_file()
        details = f"{key} - Invalid image file: {value}"
        return ("custom_validation_failed", "Custom validation failed for node", details) if missing else None
    choices = kind if isinstance(kind, list) else settings.get("options")
    if choices is not None and value not in choices:
        return "value_not_in_list", "Value not in list", f"{key}: {value!r} not in {choices}"
    if "min" in settings and value < settings["min"]:
        return "value_smaller_than_min", f"Value {value} smaller than min of {settings['min']}", key
    if "max" in settings and value > settings["max"]:
        return "value_bigger_than_max", f"Value {value} bigger than max of {settings['max']}", key
    return None


def wrong_link(graph: Graph, key: str, value: list[Any], kind: Any) -> tuple[str, str, str] | None:
    if len(value) != 2 or value[0] not in graph:
        return "bad_linked_input", "Bad linked input, must be a length-2 list of [node_id, slot_index]", key
    made = CLASSES[graph[value[0]]["class_type"]].outputs[value[1]]
    if made == kind:
        return None
    details = f"{key}, received_type({made}) mismatch input_type({kind})"
    return "return_type_mismatch", "Return type mismatch between linked nodes", details


def noise(width: int, height: int, *facts: Any) -> Image.Image:
    seed = hashlib.sha256(repr(facts).encode()).digest()
    return Image.frombytes("RGB", (width, height), random.Random(seed).randbytes(width * height * 3))


def sampled(latent: Latent, place: int, facts: tuple[Any, ...], denoise: float) -> Image.Image:
    made = noise(latent.width, latent.height, place, *facts)
    if latent.base is None:
        return made
    made = Image.blend(latent.base, made, denoise)
    if latent.mask is None:
        return made
    return Image.composite(made, latent.base, latent.mask.resize(made.size))


def loaded(path: Path) -> tuple[Image.Image, Image.Image]:
    """The picture, and its mask: what is transparent is to be painted."""
    with Image.open(path) as picture:
        alpha = picture.convert("RGBA").getchannel("A")
        return picture.convert("RGB"), alpha.point([255 - level for level in range(256)])
