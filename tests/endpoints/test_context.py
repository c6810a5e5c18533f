"""What is too long for a context is refused before it waits, and nothing else is."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from inferq import errors, request, tokenizing
from inferq.admission import Admission
from inferq.catalog import Catalog
from inferq.config import ModelSettings, Settings
from inferq.endpoints import ENDPOINTS
from inferq.request import Proxy, Request

CONTEXT = 100
DEFAULTS = {"chat/completions": {"max_tokens": 4096}, "completions": {"max_tokens": 128}}
TYPES = {"embeddings": "embedding", "rerank": "rerank"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a model whose tokens are words, of up to twenty letters."""
    folder = tmp_path / "words"
    folder.mkdir()
    words = ["[UNK]", "word", "antidisestablishment"]
    tokenizer = Tokenizer(
        models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # What is in the file for other uses must not change a count.
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=64)
    tokenizer.save(str(folder / "tokenizer.json"))
    return tmp_path


async def admitted(
    home: Path, path: str, body: dict[str, Any], source: str = "words", **more: Any
) -> Request:
    proxy = more.pop("proxy", None)
    model = {"engine": "vllm", "source": source, "type": TYPES.get(path, "chat"), "context": CONTEXT, **more}
    settings = Settings.model_validate({"models": {"m": model}, "request_defaults": DEFAULTS, "home": home})
    checked = request.check(Catalog(settings), ENDPOINTS[path], {"model": "m", **body}, proxy=proxy)
    await Admission(settings).admit(checked)
    return checked


def said(text: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


def words(count: int) -> str:
    return "antidisestablishment " * count


LONG = words(CONTEXT + 1)
TOO_LONG: list[tuple[str, dict[str, Any], str]] = [
    ("chat/completions", said(LONG), "messages"),
    ("chat/completions", said(words(CONTEXT)), "messages"),
    ("chat/completions", said(words(60), max_tokens=41), "messages"),
    ("chat/completions", said(words(60), max_completion_tokens=41, max_tokens=1), "messages"),
    ("chat/completions", said("hi", max_tokens=CONTEXT), "messages"),
    ("chat/completions", said([{"type": "text", "text": words(60)}] * 2), "messages"),
    ("completions", {"prompt": LONG}, "prompt"),
    ("completions", {"prompt": ["word", LONG]}, "prompt[1]"),
    ("completions", {"prompt": [7] * CONTEXT}, "prompt"),
    ("completions", {"prompt": [[7], [7] * 90], "max_tokens": 11}, "prompt[1]"),
    ("completions", {"prompt": "word", "suffix": LONG, "fim": True}, "prompt"),
    ("embeddings", {"input": LONG}, "input"),
    ("embeddings", {"input": ["word", LONG]}, "input[1]"),
    ("embeddings", {"input": [7] * (CONTEXT + 1)}, "input"),
    (
        "rerank",
        {"query": words(50), "documents": ["word", {"text": words(51)}], "truncate": False},
        "documents[1]",
    ),
    ("responses", {"input": LONG}, "input"),
    ("responses", {"input": [{"role": "user", "content": [{"type": "input_text", "text": LONG}]}]}, "input"),
    ("responses", {"input": words(60), "instructions": words(60)}, "input"),
    ("responses", {"input": "word", "max_output_tokens": CONTEXT}, "input"),
    ("messages", said(words(60), max_tokens=41), "messages"),
    ("messages", said(words(60), max_tokens=1, system=[{"type": "text", "text": words(60)}]), "messages"),
]


@pytest.mark.parametrize(("path", "body", "param"), TOO_LONG)
async def test_what_cannot_fit_is_refused(home: Path, path: str, body: dict[str, Any], param: str) -> None:
    more = {"fim": "qwen"} if body.pop("fim", None) else {}
    with pytest.raises(errors.ContextLengthExceeded, match=f"holds {CONTEXT} tokens") as refused:
        await admitted(home, path, dict(body), **more)
    assert refused.value.param == param


FITS: list[tuple[str, dict[str, Any]]] = [
    ("chat/completions", said("hi")),
    ("chat/completions", said(words(CONTEXT - 1))),
    ("chat/completions", said(words(60), max_tokens=40)),
    ("chat/completions", said(f"{'  ' * 900}word")),
    ("chat/completions", said(LONG, truncate_prompt_tokens=50)),
    ("chat/completions", {"messages": [{"role": "assistant", "content": f"<think>{LONG}</think>word"}]}),
    (
        "chat/completions",
        said("hi", tools=[{"type": "function", "function": {"name": "f", "description": LONG}}]),
    ),
    ("chat/completions", said([{"type": "image_url", "image_url": {"url": "data:," + "A" * 9000}}])),
    ("completions", {"prompt": [words(60)] * 3}),
    ("completions", {"prompt": [7] * (CONTEXT - 1), "max_tokens": 1}),
    ("embeddings", {"input": [words(CONTEXT)] * 3}),
    ("rerank", {"query": "word", "documents": [LONG]}),
    ("rerank", {"query": "word", "documents": [LONG], "max_tokens_per_doc": 9, "truncate": False}),
    ("responses", {"input": LONG, "truncation": "auto"}),
    ("responses", {"input": [{"type": "reasoning", "content": [{"type": "reasoning_text", "text": LONG}]}]}),
]


@pytest.mark.parametrize(("path", "body"), FITS)
async def test_what_may_fit_is_admitted(home: Path, path: str, body: dict[str, Any]) -> None:
    checked = await admitted(home, path, body)
    assert checked.encoded


async def test_an_embedder_that_cuts_gets_everything(home: Path) -> None:
    assert await admitted(home, "embeddings", {"input": LONG}, options={"truncate": True})


async def test_a_default_length_never_refuses_a_prompt(home: Path) -> None:
    """Not even where it is as long as the context."""
    for count in (1, 50, CONTEXT - 1):
        checked = await admitted(home, "chat/completions", said(words(count)))
        assert "max_tokens" not in checked.body
    short = await admitted(home, "completions", {"prompt": "word"}, context=200)
    assert short.body["max_tokens"] == 128
    unknown = await admitted(home, "completions", {"prompt": "word"}, context=None)
    assert unknown.body["max_tokens"] == 128
    assert "max_tokens" not in (await admitted(home, "chat/completions", said("word"), context=None)).body


async def test_a_model_without_a_context_takes_everything(home: Path) -> None:
    assert await admitted(home, "chat/completions", said(LONG, max_tokens=10**9), context=None)


@pytest.mark.parametrize("source", ["nowhere", "broken"])
async def test_without_a_tokenizer_only_what_is_far_over_is_refused(home: Path, source: str) -> None:
    (home / "broken").mkdir()
    (home / "broken" / "tokenizer.json").write_text("{}")
    await admitted(home, "chat/completions", said("a b c d " * CONTEXT), source)
    await admitted(home, "chat/completions", said("-" * 9000 + "\n" * 9000), source)
    with pytest.raises(errors.ContextLengthExceeded, match="guess"):
        await admitted(home, "chat/completions", said("some words of a language " * CONTEXT), source)


async def test_a_short_prompt_is_not_tokenised(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def count(*_: Any) -> int:
        raise AssertionError("tokenised")

    monkeypatch.setattr(tokenizing.Counter, "least", count)
    await admitted(home, "chat/completions", said("hello", max_tokens=20))
    with pytest.raises(AssertionError):
        await admitted(home, "chat/completions", said("hello" * 20, max_tokens=20))


async def test_long_texts_are_counted_off_the_event_loop(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where: list[threading.Thread] = []

    def count(*_: Any) -> int:
        where.append(threading.current_thread())
        time.sleep(0.2)
        return 0

    monkeypatch.setattr(tokenizing.Counter, "least", count)
    turns = 0
    call = asyncio.create_task(admitted(home, "embeddings", {"input": ["x" * 1000] * 21}))
    while not call.done():
        turns += 1
        await asyncio.sleep(0.01)
    await call
    assert threading.main_thread() not in where
    assert turns > 20


def test_counting_ends_when_it_has_seen_enough(home: Path) -> None:
    counter = tokenizing._load(home / "words")
    text = words(50_000)
    began = time.perf_counter()
    assert CONTEXT < counter.least([text], CONTEXT) < 5000
    assert time.perf_counter() - began < 1.0
    assert 50_000 - 100 < counter.least([text], 10**9) <= 50_000


async def test_a_caller_who_leaves_does_not_take_the_tokenizer_away(home: Path) -> None:
    known = tokenizing.Tokenizers()
    first = asyncio.create_task(known.find(home / "words"))
    await asyncio.sleep(0)
    first.cancel()
    assert (await known.find(home / "words")).exact


async def test_only_few_tokenizers_stay_in_memory(home: Path) -> None:
    known = tokenizing.Tokenizers()
    for number in range(2 * tokenizing.KEPT):
        await known.find(home / str(number))
    assert len(known._known) == tokenizing.KEPT


async def test_a_proxy_bounds_prompt_and_answer(home: Path) -> None:
    proxy = Proxy("m", 50)
    checked = await admitted(home, "chat/completions", {"model": "gpt-4o", **said(words(5))}, proxy=proxy)
    assert checked.body["model"] == "m"
    assert checked.body["max_tokens"] == 50 - 5 - 32
    asked = await admitted(home, "chat/completions", said("word", max_completion_tokens=9), proxy=proxy)
    assert "max_tokens" not in asked.body
    with pytest.raises(errors.ContextLengthExceeded, match="holds 50 tokens"):
        await admitted(home, "chat/completions", said(words(50)), proxy=proxy)
    with pytest.raises(errors.ContextLengthExceeded, match=f"holds {CONTEXT} tokens"):
        await admitted(home, "chat/completions", said(LONG), proxy=Proxy("m", 10**6))


ENGLISH = "Somebody has to write the letter before the post leaves, and nobody knows how. "


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("hi", 4000, 4096),
        ((ENGLISH * 100)[:7500], 1500, 4096 - 7500 // 5),
        ("\u8c01\u6765\u5199\u4fe1" * 500, 2000, 4096 - 2000),
    ],
    ids=["short", "english", "chinese"],
)
async def test_without_a_tokenizer_a_proxy_leaves_room_for_an_answer(
    home: Path, text: str, least: int, most: int
) -> None:
    for path, body, field in (
        ("chat/completions", said(text), "max_tokens"),
        ("responses", {"input": text}, "max_output_tokens"),
    ):
        checked = await admitted(home, path, body, "nowhere", context=None, proxy=Proxy("m", 4096))
        assert least <= checked.body[field] <= most


async def test_without_a_tokenizer_the_engine_ends_an_answer_where_the_guess_leaves_no_room(
    home: Path,
) -> None:
    text = (ENGLISH * 300)[:13_000]
    checked = await admitted(
        home, "chat/completions", said(text), "nowhere", context=None, proxy=Proxy("m", 4096)
    )
    assert "max_tokens" not in checked.body


@pytest.mark.parametrize("path", ["chat/completions", "responses", "messages"])
async def test_deep_nesting_is_no_fault_of_ours(home: Path, path: str) -> None:
    """JSON may nest deeper than Python recurses."""
    content: Any = "word"
    for _ in range(400):
        content = [{"type": "text", "content": content}]
    name = "input" if path == "responses" else "messages"
    body = {name: [{"role": "user", "content": content}], "max_tokens": 1}
    with pytest.raises(errors.InvalidRequest, match="cannot be passed on"):
        await admitted(home, path, body, context=10**6)
    model = ModelSettings(engine="vllm", source="none")
    assert ENDPOINTS[path].units(body, model, {}) >= 1
