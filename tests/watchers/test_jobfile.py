"""What job files ask for, and why some are refused."""

from typing import Any

import orjson
import pytest

from inferq import errors
from inferq.catalog import Catalog
from inferq.config import Settings
from inferq.request import Request
from tests.watchers.home import CONFIG
from watchers import jobfile

SETTINGS = Settings.model_validate({**CONFIG, "request_defaults": {}})
CATALOG = Catalog(SETTINGS)
TALK = [{"role": "user", "content": "x" * 400}]


def asked(**found: Any) -> Request:
    return jobfile.understand(found, CATALOG)


def units(made: Request) -> float:
    return made.endpoint.units(made.body, made.settings, {})


def test_the_long_form() -> None:
    made = asked(
        model="gpt-demo",
        endpoint="completions",
        body={"prompt": "x" * 40, "max_tokens": 5, "n": 2, "stream": True, "stream_options": {}},
        priority=9,
        metadata={"a": "b"},
    )
    assert (made.endpoint.path, made.model, made.lane) == ("completions", "demo-completion", "high")
    assert made.body == {
        "prompt": "x" * 40,
        "max_tokens": 5,
        "n": 2,
        "model": "demo-completion",
    }
    assert (units(made), made.metadata) == (20.0, {"a": "b"})


def test_the_short_form_is_the_body_itself() -> None:
    made = asked(model="demo-chat", messages=TALK, temperature=0, priority="low", metadata=None)
    assert (made.endpoint.path, made.lane, made.metadata) == ("chat/completions", "low", {})
    assert made.body == {"model": "demo-chat", "messages": TALK, "temperature": 0}
    assert units(made) == 100.0 + 256


def test_the_model_may_stand_in_the_body() -> None:
    assert asked(body={"model": "demo-embed", "input": "x"}).model == "demo-embed"


@pytest.mark.parametrize(
    ("fields", "endpoint", "size"),
    [
        ({"model": "demo-chat", "messages": TALK, "max_completion_tokens": 1}, "chat/completions", 101.0),
        (
            {"model": "demo-chat", "endpoint": "completions", "prompt": ["x" * 4, "x" * 8], "n": 1},
            "completions",
            259.0,
        ),
        ({"model": "demo-embed", "input": ["x" * 4, "x" * 4]}, "embeddings", 2.0),
        ({"model": "demo-embed", "input": [1, 2, 3]}, "embeddings", 3.0),
        ({"model": "demo-completion", "prompt": ""}, "completions", 256.0),
    ],
)
def test_endpoint_and_size(fields: dict[str, Any], endpoint: str, size: float) -> None:
    made = asked(**fields)
    assert (made.endpoint.path, units(made)) == (endpoint, size)


@pytest.mark.parametrize(
    ("fields", "kind", "param", "said"),
    [
        ({"prompt": "x"}, errors.InvalidRequest, "model", "Missing"),
        (
            {"model": "demo-chatt", "messages": TALK},
            errors.ModelNotFound,
            "model",
            "Did you mean 'demo-chat'",
        ),
        ({"model": "zzz", "messages": TALK}, errors.ModelNotFound, "model", "Models here: demo-chat"),
        (
            {"model": "demo-chat", "messages": TALK, "priority": "urgent"},
            errors.InvalidRequest,
            "priority",
            "urgent",
        ),
        ({"model": "demo-chat", "messages": TALK, "priority": 10}, errors.InvalidRequest, "priority", "10"),
        (
            {"model": "demo-embed", "endpoint": "completions"},
            errors.InvalidRequest,
            "model",
            "use /v1/embeddings",
        ),
        ({"model": "demo-chat", "endpoint": "images"}, errors.InvalidRequest, "endpoint", "Legal values"),
        ({"model": "demo-image", "prompt": 1}, errors.InvalidRequest, "prompt", "a string"),
        (
            {"model": "demo-chat", "messages": TALK, "run_at": "2030"},
            errors.InvalidRequest,
            "run_at",
            "no time",
        ),
        ({"model": "demo-chat", "body": {}, "webhook": "ftp://x"}, errors.InvalidRequest, "webhook", "https"),
        ({"model": "demo-chat", "body": [], "x": 1}, errors.InvalidRequest, "x", "Legal here"),
        ({"model": "demo-chat", "body": []}, errors.InvalidRequest, "body", "an object"),
        ({"model": "demo-chat", "messages": []}, errors.InvalidRequest, "messages", "is empty"),
        ({"model": "demo-chat", "prompt": "x"}, errors.InvalidRequest, "messages", "Missing"),
        ({"model": "demo-embed", "input": {}}, errors.InvalidRequest, "input", "a string"),
        (
            {"model": "demo-chat", "messages": TALK, "metadata": {"a": 1}},
            errors.InvalidRequest,
            "metadata.a",
            "a string",
        ),
        (
            {"model": "demo-chat", "messages": TALK, "metadata": {str(n): "" for n in range(17)}},
            errors.InvalidRequest,
            "metadata",
            "more than 16",
        ),
    ],
)
def test_refusals(fields: dict[str, Any], kind: type[errors.InferqError], param: str, said: str) -> None:
    with pytest.raises(kind) as caught:
        asked(**fields)
    assert type(caught.value) is kind
    assert caught.value.param == param
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{", "not valid JSON"),
        (b"[1]", r"one JSON object, not an array: .*inferq submit FILE`"),
        (b"1", r"one JSON object\.$"),
        (b"\xff", "not valid JSON"),
        (b'{"a": 1}\n{"a": 2}\n', r"a file here is one job.*inferq submit FILE\.jsonl"),
        (b'\xef\xbb\xbf\r\n{"a": 1}\r\n\r\n{"a": 2', "a file here is one job"),
        (b'{"a": 1,\n"b": 2', "not valid JSON"),
        (b'{"a": 1}}\n', "not valid JSON"),
    ],
)
def test_what_is_no_object_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=said):
        jobfile.parse(data)


def test_a_byte_order_mark_is_no_fault() -> None:
    assert jobfile.parse(b'\xef\xbb\xbf{"model": "x"}') == {"model": "x"}


def test_deep_nesting_is_a_refusal() -> None:
    deep = orjson.loads(b"[" * 500 + b"]" * 500)
    with pytest.raises(errors.InvalidRequest, match="cannot be passed on"):
        asked(model="demo-chat", messages=TALK, deep=deep).admit()
