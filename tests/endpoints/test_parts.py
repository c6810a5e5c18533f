"""Every place of a conversation where an engine may look for a URL is a file of ours, whatever the part's type says."""

from typing import Any

import pytest

from inferq import errors
from inferq.endpoints import ENDPOINTS, fields
from inferq.endpoints.text import CHAT_TABLE, PART_TYPES

BAD = "http://169.254.169.254/"


def named(path: str, body: dict[str, Any]) -> dict[str, Any]:
    return {place.param: place.named for place in ENDPOINTS[path].files(body)}


def chat(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts), **more}]}


@pytest.mark.parametrize("form", [*PART_TYPES, "anything"])
@pytest.mark.parametrize("key", ["image_url", "video_url", "audio_url"])
@pytest.mark.parametrize(("value", "end"), [(BAD, ""), ({"url": BAD}, ".url")])
def test_a_url_under_any_type(form: str, key: str, value: Any, end: str):
    """vLLM reads `image_url` of a part of any type that has a `uuid`."""
    part = {"type": form, "text": "hi", "uuid": "1", key: value}
    if form in ("image_url", "video_url", "audio_url", "input_audio"):
        part |= {form: value} if form != "input_audio" else {form: {"data": "AAAA"}}
    assert named("chat/completions", chat(part))[f"messages[0].content[0].{key}{end}"] == BAD


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (
            "chat/completions",
            chat({"type": "text", "content": [{"image_url": BAD}]}),
            "messages[0].content[0].content[0].image_url",
        ),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "x", "parts": [[{"video_url": BAD}]]}]},
            "messages[0].parts[0][0].video_url",
        ),
        (
            "chat/completions",
            chat({"type": "input_image", "image_url": BAD}),
            "messages[0].content[0].image_url",
        ),
        (
            "messages",
            chat({"type": "image", "source": {"type": "url", "url": BAD}}),
            "messages[0].content[0].source.url",
        ),
        (
            "messages",
            chat(
                {"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": BAD}}]}
            ),
            "messages[0].content[0].content[0].source.url",
        ),
        (
            "messages",
            {"messages": [], "system": [{"type": "image", "source": {"type": "url", "url": BAD}}]},
            "system[0].source.url",
        ),
        (
            "responses",
            {
                "input": [
                    {"type": "function_call_output", "output": [{"type": "input_image", "image_url": BAD}]}
                ]
            },
            "input[0].output[0].image_url",
        ),
        (
            "responses",
            {
                "input": [
                    {
                        "type": "computer_call_output",
                        "output": {"type": "computer_screenshot", "image_url": BAD},
                    }
                ]
            },
            "input[0].output.image_url",
        ),
        (
            "responses",
            {"input": [{"role": "user", "content": [{"type": "x", "video_url": {"url": BAD}}]}]},
            "input[0].content[0].video_url.url",
        ),
        (
            "embeddings",
            {"input": "x", **chat({"type": "image_url", "image_url": {"url": BAD}})},
            "messages[0].content[0].image_url.url",
        ),
        (
            "rerank",
            {
                "query": "x",
                "documents": [{"text": "x", "content": [{"type": "image_url", "image_url": {"url": BAD}}]}],
            },
            "documents[0].content[0].image_url.url",
        ),
    ],
)
def test_a_url_in_any_place(path: str, body: dict[str, Any], param: str):
    assert named(path, body) == {param: BAD}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "messages",
            chat({"type": "tool_use", "name": "look", "input": {"image_url": BAD, "source": {"url": BAD}}}),
        ),
        (
            "chat/completions",
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"function": {"arguments": {"image_url": BAD}}}]}
                ]
            },
        ),
        (
            "responses",
            {
                "input": [
                    {"type": "mcp_list_tools", "tools": [{"input_schema": {"image_url": {"type": "string"}}}]}
                ]
            },
        ),
        (
            "responses",
            {"input": [{"type": "message", "content": [{"type": "input_image", "image_url": None}]}]},
        ),
        ("responses", {"input": "image_url"}),
        ("messages", chat({"type": "image", "source": {"type": "base64", "data": "AAAA"}})),
        ("messages", chat({"type": "search_result", "source": BAD})),
    ],
)
def test_what_a_model_wrote_for_a_tool_is_left_alone(path: str, body: dict[str, Any]):
    assert named(path, body) == {}


@pytest.mark.parametrize("value", [1, ["http://x/"], {"href": BAD}, {"url": [BAD]}])
@pytest.mark.parametrize("form", ["text", "image_url"])
def test_a_name_that_is_no_text_is_refused(value: Any, form: str):
    with pytest.raises(errors.InvalidRequest, match="expected a string"):
        named("chat/completions", chat({"type": form, "image_url": value}))


def test_too_deep_to_look_through_is_refused():
    nested: Any = {"image_url": BAD}
    for _ in range(20):
        nested = [nested]
    for path, body in (("chat/completions", chat(nested)), ("responses", {"input": nested})):
        with pytest.raises(errors.InvalidRequest, match="nested deeper"):
            named(path, body)


@pytest.mark.parametrize("form", ["input_file", "document", "file"])
def test_files_that_nobody_reads_are_refused_inside_tool_results_too(form: str):
    with pytest.raises(errors.InvalidRequest, match=r"content\[0\].content\[0\]': files of this kind"):
        named("messages", chat({"type": "tool_result", "content": [{"type": form}]}))


def test_a_part_of_a_type_that_nobody_knows_is_refused():
    with pytest.raises(errors.InvalidRequest, match="'anything'") as caught:
        fields.verify(chat({"type": "anything", "image_url": BAD}) | {"model": "m"}, CHAT_TABLE)
    assert caught.value.param == "messages[0].content[0].type"
