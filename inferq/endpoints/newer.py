"""The newer forms of chat, which some engines offer: OpenAI's `responses` and Anthropic's `messages`."""

from collections.abc import Iterator
from typing import Any

from inferq.config import ModelSettings
from inferq.endpoints.endpoint import Body, Endpoint
from inferq.endpoints.fields import ARRAY, INTEGER, STRING, Field
from inferq.endpoints.gateway import GATEWAY, MODEL
from inferq.endpoints.length import TEMPLATE, Prompt, most_tokens, texts_of
from inferq.endpoints.parts import files_in
from inferq.endpoints.text import SAMPLING, answer_length, check_objects, is_cut, units_of

ONE = Field(types=(INTEGER,), low=1, high=1, doc="One answer per request.")

RESPONSE_TABLE = {
    "model": MODEL,
    "input": Field(types=(STRING, ARRAY), required=True, doc="A text, or items of a conversation."),
    "instructions": Field(types=(STRING,), doc="Put before the conversation."),
    "max_output_tokens": Field(types=(INTEGER,), low=1, doc="Longest answer in tokens."),
    "n": ONE,
    "stream": SAMPLING["stream"],
    **GATEWAY,
}

MESSAGE_TABLE = {
    "model": MODEL,
    "messages": Field(
        types=(ARRAY,),
        required=True,
        doc="The conversation so far, in Anthropic's form.",
        check=check_objects,
    ),
    "max_tokens": Field(types=(INTEGER,), low=1, required=True, doc="Longest answer in tokens."),
    "system": Field(types=(STRING, ARRAY), doc="Put before the conversation."),
    "n": ONE,
    "stream": SAMPLING["stream"],
    **GATEWAY,
}


_UNREAD = ("input_file", "document", "file")
"""Files that no engine here reads."""


def _response_prompt(body: Body, _model: ModelSettings) -> Iterator[Prompt]:
    """What a model thought before may be left out, so it does not count."""
    if is_cut(body):
        return
    items = body["input"]
    if isinstance(items, list):
        items = [each for each in items if not (isinstance(each, dict) and each.get("type") == "reasoning")]
    answer = answer_length(body, "max_output_tokens")
    yield _conversation("input", items, [body.get("instructions"), body.get("tools")], answer)


def _message_prompt(body: Body, _model: ModelSettings) -> Iterator[Prompt]:
    around = [body.get("system"), body.get("tools")]
    yield _conversation("messages", body["messages"], around, answer_length(body, "max_tokens"))


def _conversation(name: str, items: Any, around: list[Any], answer: int) -> Prompt:
    """`around` are the system's text and the tools; of tools templates choose what they show."""
    count = len(items) if isinstance(items, list) else 1
    most = most_tokens(items) + most_tokens(around) + TEMPLATE * (1 + count)
    return Prompt(name, tuple(texts_of([items, around[0]])), most, 0, answer)


RESPONSES = Endpoint(
    path="responses",
    takes=("chat",),
    table=RESPONSE_TABLE,
    units=units_of("input", "max_output_tokens"),
    files=lambda body: files_in(body, "input", "prompt", unread=_UNREAD),
    prompts=_response_prompt,
    length=("max_output_tokens",),
    offered=True,
)
MESSAGES = Endpoint(
    path="messages",
    takes=("chat",),
    table=MESSAGE_TABLE,
    units=units_of("messages", "max_tokens"),
    files=lambda body: files_in(body, "messages", "system", unread=_UNREAD),
    prompts=_message_prompt,
    offered=True,
)
