"""`suffix`: put before the model in its own form, or refused by name."""

from typing import Any

import pytest
from pydantic import ValidationError

from inferq import errors, request
from inferq.catalog import Catalog
from inferq.config import Settings
from inferq.config.fim import TEMPLATES
from inferq.endpoints import ENDPOINTS


def made(body: dict[str, Any], fim: str | None = "qwen") -> dict[str, Any]:
    model = {"engine": "text", "source": "none", "type": "chat", "fim": fim}
    catalog = Catalog(Settings.model_validate({"models": {"m": model}, "request_defaults": {}}))
    return request.check(catalog, ENDPOINTS["completions"], {"model": "m", **body}).body


def test_a_suffix_becomes_part_of_the_prompt() -> None:
    assert made({"prompt": "a", "suffix": "b"}) == {
        "model": "m",
        "prompt": "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>",
    }
    assert made({"prompt": ["a", "c"], "suffix": "b"}, "[S]{suffix}[P]{prefix}")["prompt"] == [
        "[S]b[P]a",
        "[S]b[P]c",
    ]


def test_what_callers_write_is_no_place_of_the_template() -> None:
    body = {"prompt": "{suffix}", "suffix": "{prefix}"}
    assert made(body, "<{prefix}|{suffix}>")["prompt"] == "<{suffix}|{prefix}>"


@pytest.mark.parametrize("fim", [None, "qwen"])
@pytest.mark.parametrize("suffix", ["", None])
def test_an_empty_suffix_asks_for_nothing(suffix: str | None, fim: str | None) -> None:
    assert made({"prompt": "a", "suffix": suffix}, fim) == {"model": "m", "prompt": "a"}


@pytest.mark.parametrize(
    ("body", "fim", "param"),
    [
        ({"prompt": "a", "suffix": "b"}, None, "suffix"),
        ({"prompt": [1, 2], "suffix": "b"}, "qwen", "suffix"),
        ({"prompt": [[1], [2]], "suffix": "b"}, "qwen", "suffix"),
        ({"prompt": "a", "suffix": "b", "echo": True}, "qwen", "echo"),
    ],
)
def test_what_cannot_be_filled_in_is_refused(body: dict[str, Any], fim: str | None, param: str) -> None:
    with pytest.raises(errors.UnsupportedParameter) as refused:
        made(body, fim)
    assert refused.value.param == param


@pytest.mark.parametrize("fim", ["", "{prefix}", "{prefix}{suffix}{suffix}", "no such name"])
def test_a_template_needs_both_places(fim: str) -> None:
    with pytest.raises(ValidationError, match="prefix"):
        made({"prompt": "a"}, fim)


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_have_names(name: str) -> None:
    prompt = made({"prompt": "before", "suffix": "after"}, name)["prompt"]
    assert prompt.index("before") < prompt.index("after")
