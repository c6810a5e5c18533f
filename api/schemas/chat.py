"""Bodies of `chat/completions` and `completions`."""

from typing import Any

from api.fields import ARRAY, BOOLEAN, INTEGER, NUMBER, OBJECT, STRING, Field, wrong_type
from api.schemas.gateway import GATEWAY, MODEL
from inferq import errors

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

CHAT = {
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

COMPLETION = {
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
