"""Text: `chat/completions` and `completions`.

The size of a request is in tokens, before anybody has tokenised it: a guess, which the queue corrects by what it
learns.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from inferq import errors
from inferq.config import ModelSettings, fim
from inferq.endpoints.endpoint import Body, Endpoint, Files, fill_in
from inferq.endpoints.fields import ARRAY, BOOLEAN, INTEGER, NUMBER, OBJECT, STRING, Field, wrong_type
from inferq.endpoints.gateway import GATEWAY, MODEL
from inferq.endpoints.length import TEMPLATE, Prompt, are_ids, most_tokens, plain, texts_of, tokens_of
from inferq.endpoints.parts import files_in

ROLES = ("system", "developer", "user", "assistant", "tool", "function")

PART_TYPES = (
    *("text", "refusal", "image_url", "input_audio", "file", "video_url", "audio_url"),
    *("input_text", "output_text", "input_image", "thinking", "tool_reference"),
    *("image_embeds", "audio_embeds", "video_embeds", "prompt_embeds"),
)
"""OpenAI's, and those that vLLM adds. Others are refused as OpenAI refuses them."""


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
            _part(part, f"{path}.content[{index}]")
    elif content is None:
        if role in ("system", "developer", "user"):
            raise errors.InvalidRequest(
                f"Missing required parameter: '{path}.content'.", param=f"{path}.content"
            )
    elif not isinstance(content, str):
        raise wrong_type(f"{path}.content", (STRING, ARRAY), content)


def _part(part: Any, path: str) -> None:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise errors.InvalidRequest(f"Invalid '{path}': expected an object with a type.", param=path)
    if part["type"] not in PART_TYPES:
        legal = ", ".join(map(repr, PART_TYPES))
        raise errors.InvalidRequest(
            f"Invalid value for '{path}.type': {part['type']!r}. Legal values: {legal}.", param=f"{path}.type"
        )


def _strings(value: Any, path: str) -> None:
    if isinstance(value, list):
        for index, item in enumerate(value):
            if not isinstance(item, str):
                raise wrong_type(f"{path}[{index}]", (STRING,), item)


def check_objects(value: list[Any], path: str) -> None:
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
    if kind is int and are_ids(value):
        return
    for index, item in enumerate(value):
        if kind not in (str, int, list) or type(item) is not kind:
            raise errors.InvalidRequest(
                f"Invalid type for '{path}[{index}]': expected texts, token ids or arrays of them, not a mixture.",
                param=f"{path}[{index}]",
            )
        if kind is list and item and not are_ids(item):
            where = f"{path}[{index}]"
            raise errors.InvalidRequest(
                f"Invalid type for '{where}': expected an array of token ids.", param=where
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
        check=check_objects,
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

_ANSWER = 256
"""Tokens of an answer whose length the caller left open."""


def units_of(prompt: str, *answer: str) -> Any:
    def units(body: Body, model: ModelSettings, _files: Files) -> float:
        asked = next((body[name] for name in answer if body.get(name)), None)
        length = asked or min(_ANSWER, model.context or _ANSWER)
        return max(1.0, tokens_of(body.get(prompt)) + length * (body.get("n") or 1))

    return units


def _fill(body: Body, defaults: Mapping[str, Any], room: int) -> None:
    """A default for the length of the answer must not make a prompt too long that would have fitted without it.

    Where there may be no room for it the engine takes what its context leaves.
    """
    most = defaults.get("max_tokens") or 0
    if body.get("max_completion_tokens") is not None or room < most:
        defaults = {name: value for name, value in defaults.items() if name != "max_tokens"}
    fill_in(body, defaults, room)


def answer_length(body: Body, *names: str) -> int:
    """Tokens that must be left for the answer: what the caller asks for, or one."""
    return next((int(body[name]) for name in names if body.get(name) is not None), 1)


def is_cut(body: Body) -> bool:
    """Whether the engine is asked to cut a prompt that is too long."""
    return body.get("truncate_prompt_tokens") is not None or body.get("truncation") == "auto"


def _chat_prompt(body: Body, _model: ModelSettings) -> Iterator[Prompt]:
    if is_cut(body):
        return
    messages = body["messages"]
    texts: list[str] = []
    most = TEMPLATE * (1 + len(messages))
    for message in messages:
        content = message.get("content")
        if isinstance(content, str) and len(message) == 2:
            most += most_tokens(content)
            texts.append(_after_thinking(content) if message["role"] == "assistant" else content)
            continue
        most += most_tokens(message)
        thinks = message["role"] == "assistant"
        texts += map(_after_thinking, texts_of(content)) if thinks else texts_of(content)
    if body.get("tools"):
        most += most_tokens(body["tools"])
    yield Prompt(
        "messages", tuple(texts), most, 0, answer_length(body, "max_completion_tokens", "max_tokens")
    )


def _after_thinking(text: str) -> str:
    """Templates leave out what a model thought before an earlier answer."""
    return text.rpartition("</think>")[2]


def _completion_prompts(body: Body, _model: ModelSettings) -> Iterator[Prompt]:
    if not is_cut(body):
        yield from plain("prompt", body["prompt"], answer_length(body, "max_tokens"))


def _fill_in_the_middle(body: Body, model: ModelSettings) -> None:
    """`suffix` becomes part of the prompt, in the model's own form: so every engine can do it that knows no suffix."""
    suffix, prompt = body.pop("suffix", None), body["prompt"]
    if not suffix:
        return
    if model.fim is None:
        raise errors.UnsupportedParameter(
            "'suffix' is not supported: this model has no form for filling in (`fim` in its configuration).",
            param="suffix",
        )
    if body.get("echo"):
        raise errors.UnsupportedParameter("'echo' cannot be combined with 'suffix'.", param="echo")
    prompts = prompt if isinstance(prompt, list) else [prompt]
    if not all(isinstance(each, str) for each in prompts):
        raise errors.UnsupportedParameter("'suffix' needs a prompt of text, not of tokens.", param="suffix")
    made = [fim.fill(model.fim, each, suffix) for each in prompts]
    body["prompt"] = made if isinstance(prompt, list) else made[0]


CHAT = Endpoint(
    path="chat/completions",
    takes=("chat",),
    table=CHAT_TABLE,
    units=units_of("messages", "max_completion_tokens", "max_tokens"),
    files=lambda body: files_in(body, "messages"),
    prompts=_chat_prompt,
    fill=_fill,
    length=("max_tokens", "max_completion_tokens"),
)
COMPLETIONS = Endpoint(
    path="completions",
    takes=("completion", "chat"),
    table=COMPLETION_TABLE,
    units=units_of("prompt", "max_tokens"),
    prepare=_fill_in_the_middle,
    prompts=_completion_prompts,
    fill=_fill,
)
