"""Reads the bodies of chat and text completions into one frozen `Ask`, and refuses what cannot be honoured.

Must not tokenize or run anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from workers.engines.failures import BadRequest, UnsupportedParameter
from workers.engines.fields import Fields, wrong_type
from workers.engines.textgen.forms import ANY_OBJECT, Frame
from workers.engines.textgen.sampling import Sampling
from workers.engines.textgen.schema import value_of

MOST_CHOICES = 128
MOST_ANSWERS = 1024
"""Answers that one request may have made: those of `n` or `best_of`, for each of its prompts."""
MOST_STOPS = 16
MOST_LOGPROBS = 20
MOST_DIGITS = 20
MOST_NAME = 256
ROLES = ("system", "developer", "user", "assistant", "tool")
MESSAGE_FIELDS = {"role", "content", "name", "tool_calls", "tool_call_id", "refusal"}
MESSAGE_FIELDS |= {"reasoning_content", "reasoning"}

ToolMode = Literal["none", "auto", "required", "named"]


@dataclass(frozen=True)
class Defaults:
    """Sampling defaults of the model (its generation_config), and what token numbers may be named."""

    sampling: Sampling
    vocabulary: int


@dataclass(frozen=True)
class Tooling:
    """The tools a request offers and how the model must use them.

    `forms` are those of their arguments by name; `strict` says that one of them is a schema that must be held to.
    """

    mode: ToolMode = "none"
    tools: tuple[dict[str, Any], ...] = ()
    forms: Mapping[str, Frame] = field(default_factory=dict)
    strict: bool = False
    named: str | None = None
    several: bool = True

    @property
    def callable(self) -> Mapping[str, Frame]:
        return {self.named: self.forms[self.named]} if self.named else self.forms


@dataclass(frozen=True)
class Ask:
    """What one request wants, whatever endpoint it came by."""

    chat: bool
    sampling: Sampling
    messages: tuple[dict[str, Any], ...] = ()
    prompts: tuple[str | tuple[int, ...], ...] = ()
    template: dict[str, Any] = field(default_factory=dict)
    tooling: Tooling = Tooling()
    form: Frame | None = None
    logprobs: bool = False
    stops: tuple[str, ...] = ()
    seed: int | None = None
    limit: int | None = None
    choices: int = 1
    candidates: int = 1
    stream: bool = False
    usage_event: bool = False
    ignore_eos: bool = False
    echo: bool = False


def read_chat(fields: Fields, defaults: Defaults) -> Ask:
    messages = fields.listing("messages")
    if not messages:
        raise BadRequest("'messages' must hold at least one message.", param="messages")
    limit = fields.integer("max_completion_tokens", 1)
    older = fields.integer("max_tokens", 1)
    wants = fields.flag("logprobs")
    top = fields.integer("top_logprobs", 0, MOST_LOGPROBS)
    if top and not wants:
        raise BadRequest("'top_logprobs' needs 'logprobs' to be true.", param="top_logprobs")
    common = read_common(fields, defaults, (top or 0) if wants else None)
    ask = Ask(
        chat=True,
        messages=tuple(read_message(message, place) for place, message in enumerate(messages)),
        template=fields.mapping("chat_template_kwargs") or {},
        tooling=read_tooling(fields),
        form=read_format(fields),
        logprobs=wants,
        limit=limit if limit is not None else older,
        candidates=common["choices"],
        **common,
    )
    fields.only("modalities", (["text"],), "only text is produced")
    fields.close()
    if ask.form and ask.tooling.mode != "none":
        raise UnsupportedParameter("response_format", "it cannot be combined with tools")
    return ask


def read_completion(fields: Fields, defaults: Defaults) -> Ask:
    prompts = read_prompts(fields.raw("prompt"), defaults.vocabulary)
    limit = fields.integer("max_tokens", 1)
    number = fields.integer("logprobs", 0, MOST_LOGPROBS)
    echo = fields.flag("echo")
    if echo and number is not None:
        raise UnsupportedParameter("echo", "it cannot be combined with logprobs")
    common = read_common(fields, defaults, number)
    fields.only("suffix", ("",), "the model cannot fill in a middle")
    common |= read_candidates(fields, common)
    fields.close()
    answers = len(prompts) * common["candidates"]
    if answers > MOST_ANSWERS:
        raise BadRequest(
            f"'prompt' with 'n' or 'best_of' asks for {answers} answers; at most {MOST_ANSWERS} are made.",
            param="prompt",
        )
    # OpenAI's default of this endpoint; a chat has none.
    limit = limit if limit is not None else 16
    return Ask(chat=False, prompts=prompts, limit=limit, echo=echo, logprobs=number is not None, **common)


def read_candidates(fields: Fields, common: dict[str, Any]) -> dict[str, Any]:
    """How many answers are made for those that are given. They are ranked by their logprobs."""
    best = fields.integer("best_of", 1, MOST_CHOICES) or common["choices"]
    if best < common["choices"]:
        raise BadRequest("'best_of' must not be below 'n'.", param="best_of")
    if best == common["choices"]:
        return {"candidates": best}
    if common["stream"]:
        raise UnsupportedParameter("best_of", "the best is known at the end, so it cannot be streamed")
    sampling = common["sampling"]
    return {"candidates": best, "sampling": replace(sampling, top_logprobs=sampling.top_logprobs or 0)}


def read_common(fields: Fields, defaults: Defaults, top_logprobs: int | None) -> dict[str, Any]:
    stream = fields.flag("stream")
    options = fields.mapping("stream_options")
    if options is not None and not stream:
        raise BadRequest("'stream_options' needs 'stream' to be true.", param="stream_options")
    inner = Fields(options or {})
    usage_event = inner.flag("include_usage")
    inner.only("include_obfuscation", (False,), "streams are not padded")
    inner.close()
    return {
        "sampling": read_sampling(fields, defaults, top_logprobs),
        "stops": read_stops(fields),
        "seed": fields.integer("seed"),
        "choices": fields.integer("n", 1, MOST_CHOICES) or 1,
        "ignore_eos": fields.flag("ignore_eos"),
        "stream": stream,
        "usage_event": usage_event,
    }


def read_sampling(fields: Fields, defaults: Defaults, top_logprobs: int | None) -> Sampling:
    base = defaults.sampling

    def number(name: str, default: float, low: float, high: float) -> float:
        value = fields.number(name, low, high)
        return default if value is None else value

    top_k = fields.integer("top_k", -1)
    return Sampling(
        temperature=number("temperature", base.temperature, 0, 2),
        top_p=number("top_p", base.top_p, 1e-9, 1),
        top_k=base.top_k if top_k is None else max(0, top_k),
        min_p=number("min_p", base.min_p, 0, 1),
        presence=number("presence_penalty", 0, -2, 2),
        frequency=number("frequency_penalty", 0, -2, 2),
        repetition=number("repetition_penalty", base.repetition, 0.01, 10),
        bias=read_bias(fields, defaults.vocabulary),
        top_logprobs=top_logprobs,
    )


def read_bias(fields: Fields, vocabulary: int) -> tuple[tuple[int, float], ...]:
    pairs = []
    for token, value in (fields.mapping("logit_bias") or {}).items():
        # Python refuses to read thousands of digits.
        if not token.isdecimal() or len(token) > MOST_DIGITS or int(token) >= vocabulary:
            raise BadRequest(f"'{token[:MOST_DIGITS]}' is no token of this model.", param="logit_bias")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not -100 <= value <= 100:
            raise BadRequest("A bias must be a number between -100 and 100.", param="logit_bias")
        pairs.append((int(token), float(value)))
    return tuple(pairs)


def read_stops(fields: Fields) -> tuple[str, ...]:
    value = fields.raw("stop")
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise wrong_type("stop", "a string or an array of strings")
    if len(stops) > MOST_STOPS:
        raise BadRequest(f"'stop' may hold at most {MOST_STOPS} texts.", param="stop")
    return tuple(stop for stop in stops if stop)


def read_prompts(value: Any, vocabulary: int) -> tuple[str | tuple[int, ...], ...]:
    """A text, texts, tokens, or lists of tokens."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not value:
        raise BadRequest("'prompt' must be a string or a non-empty array.", param="prompt")
    if all(isinstance(item, str) for item in value):
        return tuple(value)
    if all(is_token(item, vocabulary) for item in value):
        return (tuple(value),)
    if all(
        isinstance(item, list) and item and all(is_token(one, vocabulary) for one in item) for item in value
    ):
        return tuple(tuple(item) for item in value)
    raise wrong_type("prompt", f"a string, strings, or arrays of tokens below {vocabulary}")


def is_token(value: Any, vocabulary: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < vocabulary


def read_format(fields: Fields) -> Frame | None:
    """The form that answers are held to; None for any text."""
    wanted = fields.mapping("response_format") or {"type": "text"}
    kind = wanted.get("type")
    if kind == "json_schema":
        return read_schema(wanted)
    if kind not in ("text", "json_object") or len(wanted) > 1:
        raise BadRequest(
            "'response_format.type' must be 'text', 'json_object' or 'json_schema'.", param="response_format"
        )
    return ANY_OBJECT if kind == "json_object" else None


def read_schema(wanted: dict[str, Any]) -> Frame:
    where = "response_format.json_schema"
    given = wanted.get("json_schema")
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise BadRequest(f"'{where}' must be an object with a name and a schema.", param=where)
    inner = Fields(given)
    for name in ("name", "description"):
        inner.text(name)
    inner.flag("strict")
    schema = inner.mapping("schema")
    inner.close()
    return ANY_OBJECT if schema is None else object_form(schema, f"{where}.schema")


def object_form(schema: Any, where: str) -> Frame:
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        raise BadRequest(f"'{where}' must describe an object.", param=where)
    return value_of({"type": "object", **schema} if "$ref" not in schema else schema, where)


def read_message(message: Any, place: int) -> dict[str, Any]:
    where = f"messages[{place}]"
    if not isinstance(message, dict):
        raise wrong_type(where, "an object")
    role = message.get("role")
    if role not in ROLES:
        raise BadRequest(f"'{where}.role' must be one of {', '.join(ROLES)}.", param=f"{where}.role")
    for name in message.keys() - MESSAGE_FIELDS:
        if message[name] is not None:
            raise UnsupportedParameter(f"{where}.{name}")
    known = {name: value for name, value in message.items() if value is not None and name in MESSAGE_FIELDS}
    known["role"] = "system" if role == "developer" else role
    known["content"] = read_content(message.get("content"), f"{where}.content")
    if known.get("tool_calls") is not None:
        known["tool_calls"] = read_calls(known["tool_calls"], f"{where}.tool_calls")
    elif not isinstance(message.get("content"), (str, list)):
        raise BadRequest(f"'{where}.content' is required.", param=f"{where}.content")
    return known


def read_content(content: Any, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise wrong_type(where, "a string or an array of parts")
    texts = []
    for place, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            raise UnsupportedParameter(f"{where}[{place}].type", f"this model reads text only, not '{kind}'")
        if not isinstance(part.get("text"), str):
            raise wrong_type(f"{where}[{place}].text", "a string")
        texts.append(part["text"])
    return "\n".join(texts)


def read_calls(calls: Any, where: str) -> list[dict[str, Any]]:
    """Earlier calls, their arguments as objects, which is what chat templates expect."""
    if not isinstance(calls, list):
        raise wrong_type(where, "an array")
    read = []
    for place, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRequest(f"'{where}[{place}].function.name' is required.", param=f"{where}[{place}]")
        try:
            arguments = json.loads(function.get("arguments") or "{}")
        except (TypeError, ValueError, RecursionError) as error:
            path = f"{where}[{place}].function.arguments"
            raise BadRequest(f"'{path}' is not JSON that can be read.", param=path) from error
        read.append(call | {"function": {"name": function["name"], "arguments": arguments}})
    return read


def read_tooling(fields: Fields) -> Tooling:
    """The numbered cases: 1 no tools, 2 a mode by name, 3 one function by name."""
    tools = tuple(read_tool(tool, place) for place, tool in enumerate(fields.listing("tools") or []))
    choice = fields.raw("tool_choice")
    several = fields.flag("parallel_tool_calls", default=True)
    if not tools:  # 1
        if choice not in (None, "none", "auto"):
            raise BadRequest("'tool_choice' needs 'tools'.", param="tool_choice")
        return Tooling()
    forms, strict = read_arguments(fields.listing("tools") or [])
    if choice is None or isinstance(choice, str):  # 2
        if choice not in (None, "none", "auto", "required"):
            raise BadRequest("'tool_choice' must be none, auto, required or a function.", param="tool_choice")
        modes: dict[Any, ToolMode] = {"none": "none", "required": "required"}
        mode = modes.get(choice, "auto")
        return Tooling(mode, tools, forms, strict, None, several) if mode != "none" else Tooling()
    function = choice.get("function") if isinstance(choice, dict) else None  # 3
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or choice.get("type") != "function":
        raise wrong_type("tool_choice", "a mode or {type: function, function: {name}}")
    if name not in forms:
        raise BadRequest(f"'tool_choice' names '{name}', which is not among the tools.", param="tool_choice")
    return Tooling("named", tools, forms, strict, name, several)


def read_tool(tool: Any, place: int) -> dict[str, Any]:
    """A tool as chat templates expect it."""
    where = f"tools[{place}]"
    if not isinstance(tool, dict) or not isinstance(tool.get("function"), dict):
        raise wrong_type(where, "{type: function, function: {...}}")
    if tool.get("type") != "function":
        raise UnsupportedParameter(f"{where}.type", "only functions can be called")
    function = tool["function"]
    if not isinstance(function.get("name"), str) or not function["name"]:
        raise BadRequest(f"'{where}.function.name' is required.", param=f"{where}.function.name")
    if len(function["name"]) > MOST_NAME:
        raise BadRequest(
            f"'{where}.function.name' may have {MOST_NAME} characters.", param=f"{where}.function.name"
        )
    kept = {name: value for name, value in function.items() if value is not None and name != "strict"}
    return {"type": "function", "function": kept}


def read_arguments(tools: list[Any]) -> tuple[dict[str, Frame], bool]:
    """(the form of each function's arguments, whether one of them is its schema). Without `strict` it is any object."""
    forms: dict[str, Frame] = {}
    for place, tool in enumerate(tools):
        function, where = tool["function"], f"tools[{place}].function"
        strict = Fields(function).flag("strict")
        parameters = function.get("parameters") or {"properties": {}, "additionalProperties": False}
        forms[function["name"]] = object_form(parameters, f"{where}.parameters") if strict else ANY_OBJECT
    return forms, any(form is not ANY_OBJECT for form in forms.values())
