"""What a model thinks before it answers comes in a field of its own."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engines.conftest import chat
from tests.engines.process import EngineProcess, running, spawn
from workers.engines.textgen.thinking import Tags, ThinkingParser, Thought

CHAT = "/v1/chat/completions"
TAGS = {"start": "<think>", "end": "</think>"}
THOUGHT = "One.\n\nTwo </thin"
SAID = f"\n<think>\n{THOUGHT}\n</think>\n\nThe <think>answer</think>."


@pytest.fixture(scope="module")
def thinker(socket_dir: Path, chat_model: Path) -> Iterator[EngineProcess]:
    with running("text", socket_dir, str(chat_model), options={"reasoning": TAGS}) as engine:
        yield engine


@pytest.fixture(scope="module")
def lesson(chat_model: Path) -> dict[str, Any]:
    return dict(json.loads((chat_model / "thinking.json").read_text("utf-8")))


def split(text: str, cuts: list[int], begun: bool = False) -> tuple[str, str]:
    """(what was thought, what was answered), fed in pieces."""
    parser = ThinkingParser(Tags(**TAGS), begun)
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    pieces = [piece for start, end in itertools.pairwise(places) for piece in parser.push(text[start:end])]
    pieces += parser.flush()
    thought = "".join(piece.text for piece in pieces if isinstance(piece, Thought))
    return thought, "".join(piece for piece in pieces if isinstance(piece, str))


@given(cuts=st.lists(st.integers(0)))
def test_thoughts_are_found_in_any_pieces(cuts: list[int]) -> None:
    assert split(SAID, cuts) == (THOUGHT, "The <think>answer</think>.")
    assert split(SAID.partition("<think>")[2], cuts, begun=True) == (THOUGHT, "The <think>answer</think>.")


@given(cuts=st.lists(st.integers(0)))
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No thinking <think>here</think>", ("", "No thinking <think>here</think>")),
        ("<thin", ("", "<thin")),
        ("<think>never ends</thi", ("never ends</thi", "")),
        ("<think></think>x", ("", "x")),
        ("", ("", "")),
    ],
)
def test_what_is_no_thought_stays_in_the_answer(
    text: str, expected: tuple[str, str], cuts: list[int]
) -> None:
    assert split(text, cuts) == expected


def test_a_thought_is_no_part_of_the_content(thinker: EngineProcess, lesson: dict[str, Any]) -> None:
    for prompt in lesson["prompts"]:
        message = thinker.post(CHAT, chat(prompt, temperature=0)).json()["choices"][0]["message"]
        assert (message["content"], message["reasoning_content"]) == ("3 + 4 = 7.", lesson["thought"])
        assert message["reasoning"] == message["reasoning_content"]


def test_a_streamed_thought_is_the_same_thought(thinker: EngineProcess, lesson: dict[str, Any]) -> None:
    (prompt,) = lesson["prompts"]
    deltas = [event["choices"][0]["delta"] for event in thinker.events(CHAT, chat(prompt, temperature=0))]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == lesson["thought"]
    assert "".join(delta.get("content", "") for delta in deltas) == "3 + 4 = 7."
    kinds = [name for delta in deltas for name in ("reasoning_content", "content") if delta.get(name)]
    assert kinds == sorted(kinds, reverse=True), "all of the thought comes before all of the answer"
    assert kinds.count("reasoning_content") > 3


def test_an_answer_without_a_thought_has_no_field_for_it(thinker: EngineProcess) -> None:
    message = thinker.post(CHAT, chat("Say hello.", temperature=0)).json()["choices"][0]["message"]
    assert message["content"] == "Hello! I am a small demo model."
    assert "reasoning_content" not in message


def test_a_thought_that_never_ends_is_no_content(thinker: EngineProcess, lesson: dict[str, Any]) -> None:
    (prompt,) = lesson["prompts"]
    body = chat(prompt, temperature=0, max_tokens=6)
    choice = thinker.post(CHAT, body).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"] == ""
    assert lesson["thought"].startswith(choice["message"]["reasoning_content"])


def test_a_form_is_held_from_the_beginning(thinker: EngineProcess, lesson: dict[str, Any]) -> None:
    (prompt,) = lesson["prompts"]
    body = chat(prompt, temperature=0, max_tokens=40, response_format={"type": "json_object"})
    message = thinker.post(CHAT, body).json()["choices"][0]["message"]
    assert message["content"].lstrip().startswith("{")
    assert "reasoning_content" not in message


def test_without_the_option_tags_are_words(text: EngineProcess, lesson: dict[str, Any]) -> None:
    for prompt, answer in lesson["prompts"].items():
        message = text.post(CHAT, chat(prompt, temperature=0)).json()["choices"][0]["message"]
        assert message["content"] == answer


@pytest.mark.parametrize(
    "tags",
    [
        {"start": "<think>"},
        {**TAGS, "more": "x"},
        {"start": 1, "end": 2},
        {"start": "<|im_end|>", "end": "x"},
    ],
)
def test_wrong_tags_stop_the_engine_at_its_start(
    socket_dir: Path, chat_model: Path, tags: dict[str, Any]
) -> None:
    with spawn("text", socket_dir, str(chat_model), options={"reasoning": tags}) as engine:
        _, output = engine.process.communicate(timeout=60)
        assert engine.process.returncode != 0
        assert "option reasoning" in output
