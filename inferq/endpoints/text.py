"""Text: `chat/completions`, `completions`, and the two newer forms that some engines offer.

The size of a request is in tokens, before anybody has tokenised it: a guess, which the queue corrects by what it
learns.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from inferq import errors
from inferq.config import ModelSettings
from inferq.endpoints.endpoint import Body, Endpoint, FileKind, FilePlace, Files, fill_in
from inferq.endpoints.fields import ARRAY, BOOLEAN, INTEGER, NUMBER, OBJECT, STRING, Field, wrong_type
from inferq.endpoints.gateway import GATEWAY, MODEL

ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def _messages(value: list[Any], path: str) -> None:
    if not value:
        raise errors.InvalidRequest(
            f"Invalid '{path}': the array is empty; send at least one message.", param=path
        )
    for index, message in enumerate(value):
        _message(message, f"{path}[{index}]")


def _message(message: Any, path: str) -> None:
    if not isinstance(message, dict):
        raise wrong_type(path, (OBJECT,), message)
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        legal = ", ".join(repr(each) for each in ROLES)
        if role is None:
            raise errors.InvalidRequest(f"Missing required parameter: '{path}.role'.", param=f"{path}.role")
        raise errors.InvalidRequest(
            f"Invalid value for '{path}.role': {role!r}. Legal values: {legal}.", param=f"{path}.role"
        )
    if isinstance(content, list):
        for index, part in enumerate(content):
            if not isinstance(part, dict) or not isinstance(part.get("type"), str):
                where = f"{path}.content[{index}]"
                raise errors.InvalidRequest(
                    f"Invalid '{where}': expected an object with a type.", param=where
                )
    elif content is None:
        if role in ("system", "developer", "user"):
            raise errors.InvalidRequest(
                f"Missing required parameter: '{path}.content'.", param=f"{path}.content"
            )
    elif not isinstance(content, str):
        raise wrong_type(f"{path}.content", (STRING, ARRAY), content)


def _strings(value: Any, path: str) -> None:
    if isinstance(value, list):
        for index, item in enumerate(value):
            if not isinstance(item, str):
                raise wrong_type(f"{path}[{index}]", (STRING,), item)


def _objects(value: list[Any], path: str) -> None:
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise wrong_type(f"{path}[{index}]", (OBJECT,), item)


def _typed(value: Any, path: str) -> None:
    if isinstance(value, dict) and not isinstance(value.get("type"), str):
        raise errors.InvalidRequest(f"Missing required parameter: '{path}.type'.", param=f"{path}.type")


def check_prompt(value: Any, path: str) -> None:
    """A text, texts, token ids, or lists of token ids; not a mixture."""
    if not isinstance(value, list):
        return
    if not value:
        raise errors.InvalidRequest(f"Invalid '{path}': the array is empty.", param=path)
    kind = type(value[0])
    for index, item in enumerate(value):
        if kind not in (str, int, list) or type(item) is not kind:
            raise errors.InvalidRequest(
                f"Invalid type for '{path}[{index}]': expected texts, token ids or arrays of them, not a mixture.",
                param=f"{path}[{index}]",
            )


PROMPT_SCHEMA = {
    "oneOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}},
        {"type": "array", "items": {"type": "integer"}},
        {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
    ]
}

SAMPLING = {
    "temperature": Field(types=(NUMBER,), low=0, high=2, doc="0 always takes the likeliest token."),
    "top_p": Field(types=(NUMBER,), low=0, high=1, doc="Share of probability that is sampled from."),
    "n": Field(types=(INTEGER,), low=1, high=128, doc="How many answers."),
    "stop": Field(
        types=(STRING, ARRAY),
        doc="Texts at which the answer ends.",
        check=_strings,
        schema={"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    ),
    "max_tokens": Field(types=(INTEGER,), low=1, doc="Longest answer in tokens."),
    "presence_penalty": Field(types=(NUMBER,), low=-2, high=2, doc="Pushes towards new subjects."),
    "frequency_penalty": Field(types=(NUMBER,), low=-2, high=2, doc="Pushes against repetition."),
    "logit_bias": Field(types=(OBJECT,), doc="Token id to a bias from -100 to 100."),
    "seed": Field(types=(INTEGER,), doc="Makes sampling repeatable as far as the engine can."),
    "stream": Field(types=(BOOLEAN,), doc="Answer as server-sent events, ended by `data: [DONE]`."),
    "stream_options": Field(
        types=(OBJECT,), doc='`{"include_usage": true}` adds a last chunk with the usage.'
    ),
    "user": Field(types=(STRING,), doc="A name for the end user; not used."),
}

CHAT_TABLE = {
    "model": MODEL,
    "messages": Field(
        types=(ARRAY,),
        required=True,
        doc="The conversation so far.",
        check=_messages,
        schema={
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["role"],
                "properties": {
                    "role": {"type": "string", "enum": list(ROLES)},
                    "content": {
                        "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]
                    },
                    "name": {"type": "string"},
                    "tool_calls": {"type": "array", "items": {"type": "object"}},
                    "tool_call_id": {"type": "string"},
                },
            },
        },
    ),
    **SAMPLING,
    "max_completion_tokens": Field(types=(INTEGER,), low=1, doc="Newer name of `max_tokens`."),
    "logprobs": Field(types=(BOOLEAN,), doc="Give the log probability of each token."),
    "top_logprobs": Field(types=(INTEGER,), low=0, high=20, doc="How many likeliest tokens per place."),
    "response_format": Field(
        types=(OBJECT,),
        doc="`text`, `json_object`, or `json_schema` with a schema.",
        check=_typed,
        schema={"required": ["type"]},
    ),
    "tools": Field(
        types=(ARRAY,),
        doc="Functions the model may call.",
        check=_objects,
        schema={"items": {"type": "object"}},
    ),
    "tool_choice": Field(
        types=(STRING, OBJECT),
        choices=("none", "auto", "required"),
        doc="`none`, `auto`, `required`, or one function.",
        check=_typed,
    ),
    "parallel_tool_calls": Field(types=(BOOLEAN,), doc="Allow several tool calls at once."),
    **GATEWAY,
}

COMPLETION_TABLE = {
    "model": MODEL,
    "prompt": Field(
        types=(STRING, ARRAY),
        required=True,
        doc="What is to be continued.",
        check=check_prompt,
        schema=PROMPT_SCHEMA,
    ),
    "suffix": Field(types=(STRING,), doc="What comes after the answer, for models that can fill in."),
    **SAMPLING,
    "logprobs": Field(types=(INTEGER,), low=0, high=5, doc="How many likeliest tokens per place."),
    "echo": Field(types=(BOOLEAN,), doc="Repeat the prompt before the answer."),
    "best_of": Field(types=(INTEGER,), low=1, high=20, doc="Make this many answers and give the best."),
    **GATEWAY,
}

RESPONSE_TABLE = {
    "model": MODEL,
    "input": Field(types=(STRING, ARRAY), required=True, doc="A text, or items of a conversation."),
    "instructions": Field(types=(STRING,), doc="Put before the conversation."),
    "max_output_tokens": Field(types=(INTEGER,), low=1, doc="Longest answer in tokens."),
    "stream": SAMPLING["stream"],
    **GATEWAY,
}

MESSAGE_TABLE = {
    "model": MODEL,
    "messages": Field(
        types=(ARRAY,), required=True, doc="The conversation so far, in Anthropic's form.", check=_objects
    ),
    "max_tokens": Field(types=(INTEGER,), low=1, required=True, doc="Longest answer in tokens."),
    "system": Field(types=(STRING, ARRAY), doc="Put before the conversation."),
    "stream": SAMPLING["stream"],
    **GATEWAY,
}

_CHARACTERS_PER_TOKEN = 4
_ANSWER = 256
"""Tokens of an answer whose length the caller left open."""
_TEMPLATE = 32
"""Tokens that a template may put around a message, or around all of them."""
_PART = 512
"""Tokens of an image, a sound or another part that is not text."""


def tokens_of(value: Any) -> float:
    """Tokens of a text, of token ids, of a message with its parts, or of a list of these."""
    if isinstance(value, str):
        return len(value) / _CHARACTERS_PER_TOKEN
    if isinstance(value, list):
        return sum(tokens_of(item) for item in value)
    if isinstance(value, dict):
        if isinstance(value.get("text"), str):
            return tokens_of(value["text"])
        content = value.get("content")
        return (
            tokens_of(content)
            if isinstance(content, str | list)
            else 0.0
            if "role" in value
            else float(_PART)
        )
    return 1.0


def _units_of(prompt: str, *answer: str) -> Any:
    def units(body: Body, model: ModelSettings, _files: Files) -> float:
        asked = next((body[name] for name in answer if body.get(name)), None)
        length = asked or min(_ANSWER, model.context or _ANSWER)
        return max(1.0, tokens_of(body.get(prompt)) + length * (body.get("n") or 1))

    return units


def _fill(body: Body, defaults: Mapping[str, Any], model: ModelSettings) -> None:
    """A default for the length of the answer must not make a prompt too long that would have fitted without it.

    A text has at most as many tokens as bytes. Where that leaves room for the default it is sent, else the engine
    takes what its context leaves.
    """
    if body.get("max_completion_tokens") is not None:
        defaults = {name: value for name, value in defaults.items() if name != "max_tokens"}
    elif body.get("max_tokens") is None and model.context is not None:
        room = model.context - most_tokens(body)
        if room < (defaults.get("max_tokens") or 0):
            defaults = {name: value for name, value in defaults.items() if name != "max_tokens"}
    fill_in(body, defaults, model)


def most_tokens(body: Body) -> int:
    """More tokens than the prompt of a request can have, its template included."""
    messages = body.get("messages") or ()
    prompt = body.get("messages") if messages else body.get("prompt")
    return _bytes(prompt) + _bytes(body.get("tools")) + _TEMPLATE * (1 + len(messages))


def _bytes(value: Any) -> int:
    """Bytes of all texts in a value; without recursion, because callers may nest deeper than Python does."""
    total, rest = 0, [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            total += len(item.encode(errors="replace"))
        elif isinstance(item, dict):
            rest += (*item, *item.values())
        elif isinstance(item, list):
            rest += item
        else:
            total += 8
    return total


def _chat_files(body: Body) -> Iterator[FilePlace]:
    """Pictures and sounds in the parts of messages, as OpenAI has them."""
    for index, message in enumerate(body["messages"]):
        content = message.get("content")
        if isinstance(content, list):
            for place, part in enumerate(content):
                yield from _part_files(part, f"messages[{index}].content[{place}]")


_PART_KINDS = {"image_url": FileKind.IMAGE, "video_url": FileKind.VIDEO, "audio_url": FileKind.AUDIO}


def _part_files(part: dict[str, Any], path: str) -> Iterator[FilePlace]:
    form = part["type"]
    if form in _PART_KINDS:
        named = part.get(form)
        if isinstance(named, dict):
            _require_url(named, "url", f"{path}.{form}")
            yield FilePlace(named, "url", f"{path}.{form}.url", _PART_KINDS[form])
        else:
            _require_url(part, form, path)
            yield FilePlace(part, form, f"{path}.{form}", _PART_KINDS[form])
    elif form == "input_audio":
        named = part.get(form)
        if not isinstance(named, dict):
            raise wrong_type(f"{path}.{form}", (OBJECT,), named)
        _require_url(named, "data", f"{path}.{form}")
        yield FilePlace(named, "data", f"{path}.{form}.data", FileKind.AUDIO, bare=True)


def _require_url(holder: dict[str, Any], name: str, path: str) -> None:
    if not isinstance(holder.get(name), str):
        raise wrong_type(f"{path}.{name}", (STRING,), holder.get(name))


CHAT = Endpoint(
    path="chat/completions",
    takes=("chat",),
    table=CHAT_TABLE,
    units=_units_of("messages", "max_completion_tokens", "max_tokens"),
    files=_chat_files,
    fill=_fill,
)
COMPLETIONS = Endpoint(
    path="completions",
    takes=("completion", "chat"),
    table=COMPLETION_TABLE,
    units=_units_of("prompt", "max_tokens"),
    fill=_fill,
)


def _item_files(items: Any, name: str) -> Iterator[FilePlace]:
    """Pictures in the items of a conversation, in the forms of `responses` and of `messages`.

    What an engine would fetch by itself must not reach it, so every URL here is taken.
    """
    for index, item in enumerate(items if isinstance(items, list) else ()):
        content = item.get("content") if isinstance(item, dict) else None
        for place, part in enumerate(content if isinstance(content, list) else ()):
            path = f"{name}[{index}].content[{place}]"
            if not isinstance(part, dict):
                raise wrong_type(path, (OBJECT,), part)
            if isinstance(part.get("image_url"), str):
                yield FilePlace(part, "image_url", f"{path}.image_url", FileKind.IMAGE)
            source = part.get("source")
            if isinstance(source, dict) and source.get("type") == "url":
                _require_url(source, "url", f"{path}.source")
                yield FilePlace(source, "url", f"{path}.source.url", FileKind.IMAGE)
            if part.get("type") in ("input_file", "document", "file"):
                raise errors.InvalidRequest(
                    f"Unsupported '{path}': files of this kind cannot be read.", param=path
                )


RESPONSES = Endpoint(
    path="responses",
    takes=("chat",),
    table=RESPONSE_TABLE,
    units=_units_of("input", "max_output_tokens"),
    files=lambda body: _item_files(body["input"], "input"),
    offered=True,
)
MESSAGES = Endpoint(
    path="messages",
    takes=("chat",),
    table=MESSAGE_TABLE,
    units=_units_of("messages", "max_tokens"),
    files=lambda body: _item_files(body["messages"], "messages"),
    offered=True,
)
