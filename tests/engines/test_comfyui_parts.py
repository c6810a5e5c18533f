"""Parts of the ComfyUI engine alone: reading messages, and the declarations of nodes."""

import json
import struct
from typing import Any

import aiohttp
import pytest

from workers.engines.comfy.events import Ear, Pace, Progress, preview_of
from workers.engines.comfy.inputs import Input, input_of
from workers.engines.comfy.pictures import without_texts
from workers.engines.comfy.prompt import prompt_id_of
from workers.engines.failures import BadRequest

OURS, OTHERS = "our-prompt", "their-prompt"
GRAPH: dict[str, Any] = {
    "a": {"class_type": "KSampler", "inputs": {"steps": 10, "latent_image": ["x", 0]}},
    "b": {"class_type": "KSampler", "inputs": {"steps": 30, "latent_image": ["a", 0]}},
    "c": {"class_type": "BasicScheduler", "inputs": {"steps": 7}},
}


class Heard:
    """An ear, and what it reported and showed."""

    def __init__(self, previews: int = 3) -> None:
        self.reports: list[tuple[float, float | None, str]] = []
        self.shown: list[tuple[int, bytes]] = []
        progress = Progress.of(GRAPH, lambda *report: self.reports.append(report))
        self.ear = Ear(OURS, progress, Pace(previews), lambda *shown: self.shown.append(shown))

    def text(self, kind: str, prompt: str | None = OURS, **data: Any) -> bool:
        data |= {} if prompt is None else {"prompt_id": prompt}
        return self.raw(json.dumps({"type": kind, "data": data}))

    def raw(self, data: str | bytes) -> bool:
        kind = aiohttp.WSMsgType.TEXT if isinstance(data, str) else aiohttp.WSMsgType.BINARY
        return self.ear.read(aiohttp.WSMessage(kind, data, None))


def old(picture: bytes) -> bytes:
    return struct.pack(">II", 1, 2) + picture


def new(picture: bytes, facts: Any) -> bytes:
    text = json.dumps(facts).encode()
    return struct.pack(">II", 4, len(text)) + text + picture


def test_steps_of_all_samplers_are_one_number() -> None:
    heard = Heard()
    heard.text("execution_start")
    heard.text("progress", node="a", value=5, max=10)
    heard.text(
        "progress_state", nodes={"a": {"value": 10, "max": 10}, "b": {"value": 1, "max": 30}, "d": None}
    )
    heard.text("progress_state", nodes={"c": {"value": 1, "max": 1}})
    heard.text("progress", node="upscale", value=1, max=4)
    assert heard.reports == [
        (0, 40, "painting"),
        (5, 40, "painting"),
        (10, 40, "painting"),
        (11, 40, "painting"),
        (12, 44, "painting"),
    ]


def test_cached_samplers_do_not_count() -> None:
    heard = Heard()
    heard.text("execution_cached", nodes=["a", 7])
    heard.text("progress", node="b", value=3, max=30)
    assert heard.reports == [(3, 30, "painting")]


def test_the_end_is_heard_of_our_prompt_only() -> None:
    heard = Heard()
    for kind, facts in (
        ("execution_success", {}),
        ("execution_error", {}),
        ("execution_interrupted", {}),
        ("executing", {"node": None}),
    ):
        assert heard.text(kind, **facts)
        assert not heard.text(kind, OTHERS, **facts)
        assert not heard.text(kind, None, **facts)
    assert not heard.text("executing", node="a")


def test_other_prompts_and_nonsense_move_nothing() -> None:
    heard = Heard()
    heard.text("progress", OTHERS, node="a", value=5, max=10)
    heard.text("progress", node="a", value="5", max=None)
    heard.text("progress_state", nodes=[])
    for raw in ("", "{", "[]", "7", '{"type": "progress"}', '{"type": "progress", "data": 7}'):
        assert not heard.raw(raw)
    assert heard.reports == []


def test_both_kinds_of_previews_are_read() -> None:
    assert preview_of(old(b"picture"), OURS) == b"picture"
    assert preview_of(new(b"picture", {"prompt_id": OURS}), OURS) == b"picture"
    assert preview_of(new(b"picture", {}), OURS) == b"picture"
    assert preview_of(new(b"picture", {"prompt_id": OTHERS}), OURS) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00\x00\x00\x01",
        struct.pack(">II", 3, 1) + b"text",
        struct.pack(">II", 4, 2**32 - 1) + b"{}",
        struct.pack(">II", 4, 2) + b"{{picture",
        struct.pack(">II", 4, 2) + b"[]picture",
    ],
)
def test_what_is_no_preview_is_left_alone(raw: bytes) -> None:
    assert preview_of(raw, OURS) is None


def test_previews_are_spread_over_the_steps() -> None:
    heard = Heard(previews=3)
    for step in range(1, 11):
        heard.text("progress", node="a", value=step, max=10)
        heard.raw(old(f"a{step}".encode()))
    for step in range(1, 31):
        heard.text("progress", node="b", value=step, max=30)
        heard.raw(old(f"b{step}".encode()))
    assert heard.shown == [(0, b"a10"), (1, b"b10"), (2, b"b20")]


@pytest.mark.parametrize(
    ("declared", "found"),
    [
        (["INT", {"min": 1, "max": 9, "step": 2}], Input("INT", 1, 9, 2)),
        (["STRING"], Input("STRING")),
        ([["a", "b"]], Input("COMBO", choices=("a", "b"))),
        (["COMBO", {"options": ["a"]}], Input("COMBO", choices=("a",))),
        (["COMBO", {"options": ["a"], "remote": {}}], Input("COMBO", choices=("a",))),
        (["COMBO", {"options": ["a"], "remote": {"route": "/x"}}], Input("COMBO")),
        ([["a.png"], {"image_upload": True}], Input("COMBO")),
        ([], Input()),
    ],
)
def test_declarations_old_and_new(declared: list[Any], found: Input) -> None:
    assert input_of(declared) == found


def test_a_choice_is_of_its_own_type() -> None:
    assert Input("COMBO", choices=(1, 2)).check(1, "x") == 1
    for value in (True, "1", [1], {"__value__": 1}):
        with pytest.raises(BadRequest):
            Input("COMBO", choices=(1, 2)).check(value, "x")


def test_numbers_that_are_none_are_refused() -> None:
    for value in (float("nan"), float("inf"), True, "1"):
        with pytest.raises(BadRequest):
            Input("FLOAT", 0, 10).check(value, "x")


def test_only_canonical_ids_are_kept() -> None:
    name = "018f0c8e-7f2a-7c3d-9e10-0123456789ab"
    assert prompt_id_of(name) == name
    for other in (name.upper(), name.replace("-", ""), f"{name}#1", "7", ""):
        made = prompt_id_of(other)
        assert made != other
        assert prompt_id_of(made) == made


def test_only_texts_go_out_of_a_png() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I4s", len(data), kind) + data + b"\0\0\0\0"

    sign = b"\x89PNG\r\n\x1a\n"
    kept = chunk(b"IHDR", b"x" * 13), chunk(b"IDAT", b"tEXt"), chunk(b"IEND", b"")
    texts = [chunk(kind, b"secret") for kind in (b"tEXt", b"zTXt", b"iTXt")]
    assert without_texts(sign + kept[0] + b"".join(texts) + kept[1] + kept[2]) == sign + b"".join(kept)
    with pytest.raises(struct.error):
        without_texts(sign + kept[0] + b"\0\0")
