"""The vision engine: which picture gets which answer, and how it is said."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.engines.paint import Colour, hostile, plain, shelve
from tests.engines.process import EngineProcess, demo_model, eventually, running

PATH = "/v1/chat/completions"
COLOURS: dict[str, Colour] = {
    "red": (210, 30, 30),
    "green": (30, 160, 60),
    "blue": (30, 60, 210),
    "yellow": (240, 220, 40),
    "black": (10, 10, 10),
    "white": (250, 250, 250),
}
Part = dict[str, Any]


@pytest.fixture(scope="module")
def shelf(media_dir: Path) -> dict[str, str]:
    """The URL of a picture of each colour."""
    return {name: shelve(media_dir, f"{name}.png", plain(colour)) for name, colour in COLOURS.items()}


def show(url: Any, **more: Any) -> Part:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def say(text: str) -> Part:
    return {"type": "text", "text": text}


def ask(*parts: Part | str, **more: Any) -> dict[str, Any]:
    content = [say(part) if isinstance(part, str) else part for part in parts]
    return {"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 20, **more}


def answer(engine: EngineProcess, body: dict[str, Any]) -> dict[str, Any]:
    response = engine.post(PATH, body)
    assert response.status_code == 200, response.text
    return dict(response.json())


def said(engine: EngineProcess, body: dict[str, Any]) -> str:
    return str(answer(engine, body)["choices"][0]["message"]["content"])


def refusal(engine: EngineProcess, body: dict[str, Any]) -> tuple[int, str]:
    response = engine.post(PATH, body)
    return response.status_code, response.json()["error"]["param"]


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize(("width", "height"), [(64, 64), (9, 14), (640, 120), (500, 900)])
def test_it_sees_the_colour(
    vision: EngineProcess, media_dir: Path, colour: str, width: int, height: int
) -> None:
    url = shelve(media_dir, f"{colour}-{width}x{height}.png", plain(COLOURS[colour], width, height))
    assert said(vision, ask("What colour is this?", show(url))) == colour


@pytest.mark.parametrize("pair", [("red", "blue"), ("blue", "red"), ("green", "white"), ("black", "yellow")])
def test_two_pictures_keep_their_order(
    vision: EngineProcess, shelf: dict[str, str], pair: tuple[str, str]
) -> None:
    pictures = [show(shelf[colour]) for colour in pair]
    assert said(vision, ask(*pictures, "What colours are these?")) == ", ".join(pair)
    assert said(vision, ask("What colours are these?", *pictures)) == ", ".join(pair)


def test_text_alone_is_answered(vision: EngineProcess) -> None:
    assert said(vision, ask("Say hello.")) == "Hello, I look at pictures."
    plain_text = {"messages": [{"role": "user", "content": "Say hello."}], "temperature": 0}
    assert said(vision, plain_text) == "Hello, I look at pictures."


def test_the_whole_answer_has_the_form_of_the_text_engine(
    vision: EngineProcess, shelf: dict[str, str]
) -> None:
    body = answer(vision, ask("What colour is this?", show(shelf["red"], detail="high")))
    assert set(body) == {"id", "object", "created", "model", "choices", "usage"}
    assert (body["object"], body["model"]) == ("chat.completion", vision.name)
    [choice] = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": "red", "refusal": None}
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)


def test_usage_counts_pictures(vision: EngineProcess, shelf: dict[str, str]) -> None:
    """A picture of 32x32 pixels after scaling is 4 tokens of 16x16 pixels."""
    counts = []
    for number in range(3):
        usage = answer(vision, ask("What colour is this?", *[show(shelf["red"])] * number))["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        counts.append(usage["prompt_tokens"])
    assert [count - counts[0] for count in counts] == [0, 4, 8]
    assert answer(vision, ask("Say hello.", max_tokens=3))["usage"]["completion_tokens"] == 3


def test_a_stream_is_the_whole_in_pieces(vision: EngineProcess, shelf: dict[str, str]) -> None:
    body = ask("What colours are these?", show(shelf["red"]), show(shelf["green"]))
    events = vision.events(PATH, body | {"stream_options": {"include_usage": True}})
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    texts = [event["choices"][0]["delta"].get("content", "") for event in events[:-1]]
    assert len([text for text in texts if text]) > 1
    whole = answer(vision, body)
    assert "".join(texts) == whole["choices"][0]["message"]["content"] == "red, green"
    assert [event["choices"][0]["finish_reason"] for event in events[:-1]][-1] == "stop"
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == whole["usage"]
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert "usage" not in vision.events(PATH, body)[-1]


@pytest.mark.parametrize("stop", [",", [", "], ["nothing", " I"]])
def test_stop_texts_end_the_answer(vision: EngineProcess, stop: Any) -> None:
    choice = answer(vision, ask("Say hello.", stop=stop))["choices"][0]
    wanted = "Hello," if stop == ["nothing", " I"] else "Hello"
    assert (choice["message"]["content"], choice["finish_reason"]) == (wanted, "stop")


def test_a_limit_ends_the_answer(vision: EngineProcess) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        body = ask("Say hello.") | {name: 2}
        choice = answer(vision, body)["choices"][0]
        assert choice["finish_reason"] == "length"
        assert "Hello, I look at pictures.".startswith(choice["message"]["content"])


def test_a_seed_repeats_what_was_drawn(vision: EngineProcess) -> None:
    def drawn(seed: int) -> str:
        return said(vision, ask("Say hello.", seed=seed, ignore_eos=True) | {"temperature": 2})

    assert drawn(5) == drawn(5)
    assert len({drawn(seed) for seed in range(6)}) > 1


def test_sampling_settings_are_honoured(vision: EngineProcess) -> None:
    hot = {"temperature": 2, "ignore_eos": True}
    assert said(vision, ask("Say hello.") | hot | {"top_p": 1e-6}).startswith("Hello, I look at pictures.")
    assert said(vision, ask("Say hello.") | hot | {"top_k": 1}).startswith("Hello, I look at pictures.")
    body = ask("Say hello.", logprobs=True, top_logprobs=2, max_tokens=1)
    [first] = answer(vision, body)["choices"][0]["logprobs"]["content"]
    assert len(first["top_logprobs"]) == 2
    assert first["logprob"] == max(entry["logprob"] for entry in first["top_logprobs"]) > -0.5


def test_over_the_context_is_refused(vision: EngineProcess, shelf: dict[str, str]) -> None:
    context = vision.health()["context"]
    for body in (ask("red " * 2000), ask("Say hello.", max_tokens=context)):
        error = vision.post(PATH, body).json()["error"]
        assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")


def test_a_caller_who_leaves_frees_the_model(vision: EngineProcess) -> None:
    """The next answer comes right away, though the one that was left had most of its context to fill."""
    began = time.monotonic()
    answer(vision, ask("Say hello.", ignore_eos=True) | {"max_tokens": 100})
    hundred = time.monotonic() - began
    with vision.sent(PATH, ask("Say hello.", ignore_eos=True) | {"max_tokens": 900}, "left"):
        eventually(lambda: "left" in vision.running(), "runs")
        time.sleep(0.1)
    began = time.monotonic()
    answer(vision, ask("Say hello."))
    assert time.monotonic() - began < 3 * hundred
    assert not vision.running()


def test_progress_counts_tokens(vision: EngineProcess) -> None:
    with vision.sent(PATH, ask("Say hello.", ignore_eos=True) | {"max_tokens": 900}, "long"):
        first = eventually(lambda: progress(vision, 0), "begins")
        eventually(lambda: progress(vision, first + 20), "moves")


def progress(engine: EngineProcess, above: int) -> int:
    runs = engine.get("/runs").json()["runs"]
    return int(runs[0]["done"]) if runs and runs[0]["done"] > above and runs[0]["total"] == 900 else 0


@pytest.mark.parametrize("kind", hostile())
def test_hostile_pictures_are_refused(vision: EngineProcess, media_dir: Path, kind: str) -> None:
    url = shelve(media_dir, f"hostile {kind}.png", hostile()[kind])
    began = time.monotonic()
    assert refusal(vision, ask("What colour is this?", show(url))) == (
        400,
        "messages[0].content[1].image_url.url",
    )
    assert time.monotonic() - began < 3
    assert vision.health()["memory_bytes"] < 2**31


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "http://127.0.0.1/x.png", "data:image/png;base64,AA", 7, None, "file:..", ""],
)
def test_pictures_come_from_the_media_folder_only(vision: EngineProcess, url: Any) -> None:
    assert refusal(vision, ask(show(url))) == (400, "messages[0].content[0].image_url.url")


def test_an_honest_picture_elsewhere_is_not_read(
    vision: EngineProcess, media_dir: Path, tmp_path: Path
) -> None:
    outside = shelve(tmp_path, "red.png", plain((220, 20, 20)))
    link = media_dir / "way-out.png"
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / "red.png")
    up = f"{media_dir.as_uri()}/../{tmp_path.relative_to(media_dir.parent)}/red.png"
    for url in (outside, link.as_uri(), up):
        assert refusal(vision, ask("What colour is this?", show(url))) == (
            400,
            "messages[0].content[1].image_url.url",
        )


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [7]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "colour": 1}]}, "messages[0].colour"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [7]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 7}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "system", "content": [show("file:///x")]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [show("x", detail="max")]}]},
         "messages[0].content[0].image_url.detail"),
        ({"messages": [{"role": "user", "content": "what is <image>?"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [show("file:///x")] * 17}]}, "messages"),
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"functions": []}, "functions"),
        ({"chat_template_kwargs": {"chat_template": "a program"}}, "chat_template_kwargs.chat_template"),
        ({"chat_template_kwargs": {"processor_kwargs": {}}}, "chat_template_kwargs.processor_kwargs"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(
    vision: EngineProcess, more: dict[str, Any], param: str
) -> None:
    assert refusal(vision, ask("Say hello.") | more) == (400, param)


def test_a_text_that_spells_the_mark_of_a_picture_is_refused_in_plain_words(vision: EngineProcess) -> None:
    error = vision.post(PATH, ask("what is <image>?")).json()["error"]
    assert "must not hold '<image>'" in error["message"]


def test_the_limit_of_pixels_is_for_all_pictures_together(short_dir: Path, media_dir: Path) -> None:
    one = shelve(media_dir, "hundred.png", plain(COLOURS["red"], 100, 100))
    options = {"max_input_pixels": 15_000, "max_model_len": 64, "threads": 1}
    model = str(demo_model("demo-vision"))
    with running("vision", short_dir, model, options=options, media=media_dir) as engine:
        assert engine.health()["context"] == 64
        assert said(engine, ask("What colour is this?", show(one))) == "red"
        assert refusal(engine, ask("What colours are these?", show(one), show(one))) == (
            400,
            "messages[0].content[2].image_url.url",
        )


def test_a_family_that_could_also_see_videos_loads_without_torchvision(
    short_dir: Path, media_dir: Path
) -> None:
    """Qwen2.5-VL looks at pictures in their own size: one token for 28x28 pixels, and two around a picture."""

    def look(colour: str, width: int, height: int) -> dict[str, Any]:
        url = shelve(media_dir, f"qwen-{colour}-{width}.png", plain(COLOURS[colour], width, height))
        return answer(engine, ask("hello", show(url), logprobs=True))

    def chances(body: dict[str, Any]) -> list[float]:
        return [entry["logprob"] for entry in body["choices"][0]["logprobs"]["content"]]

    model = str(demo_model("demo-qwen-vision"))
    with running("vision", short_dir, model, options={"threads": 1}, media=media_dir) as engine:
        alone = answer(engine, ask("hello"))["usage"]["prompt_tokens"]
        small, large, other = look("red", 84, 84), look("red", 280, 140), look("blue", 84, 84)
    assert small["usage"]["prompt_tokens"] - alone == 2 + 9
    assert large["usage"]["prompt_tokens"] - alone == 2 + 50
    assert chances(small) != chances(other)
