"""Reads a chat whose messages may hold pictures into one frozen `VisionAsk`, and refuses what cannot be honoured.

Everything that is not about pictures is read as the text engine reads it. Must not open files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workers.engines.failures import BadRequest, UnsupportedParameter
from workers.engines.fields import Fields, wrong_type
from workers.engines.textgen.request import Defaults, read_common
from workers.engines.textgen.sampling import Sampling

ROLES = ("system", "developer", "user", "assistant")
DETAILS = ("auto", "low", "high")
NO_TOOLS = "this engine calls no functions"
MOST_LOGPROBS = 20


@dataclass(frozen=True)
class PictureLink:
    """A picture that a message names, and the field that names it."""

    url: Any
    param: str


@dataclass(frozen=True)
class VisionAsk:
    """What one request wants. `messages` have lists of parts, as chat templates of such models expect them."""

    messages: tuple[dict[str, Any], ...]
    pictures: tuple[PictureLink, ...]
    template: dict[str, Any]
    sampling: Sampling
    stops: tuple[str, ...]
    seed: int | None
    limit: int | None
    stream: bool
    usage_event: bool
    ignore_eos: bool


def read_vision(fields: Fields, defaults: Defaults, most_pictures: int) -> VisionAsk:
    messages = fields.listing("messages")
    if not messages:
        raise BadRequest("'messages' must hold at least one message.", param="messages")
    pictures: list[PictureLink] = []
    turns = tuple(
        read_turn(message, f"messages[{place}]", pictures) for place, message in enumerate(messages)
    )
    if len(pictures) > most_pictures:
        raise BadRequest(
            f"'messages' hold {len(pictures)} pictures; at most {most_pictures} are read.", param="messages"
        )
    limit, older = fields.integer("max_completion_tokens", 1), fields.integer("max_tokens", 1)
    common = read_common(fields, defaults, read_logprobs(fields))
    if common.pop("choices") != 1:
        raise UnsupportedParameter("n", "one answer per request")
    fields.only("response_format", ({"type": "text"},), "answers are text")
    ask = VisionAsk(
        messages=turns,
        pictures=tuple(pictures),
        template=fields.mapping("chat_template_kwargs") or {},
        limit=limit if limit is not None else older,
        **common,
    )
    fields.only("tools", ([],), NO_TOOLS)
    fields.only("tool_choice", ("none", "auto"), NO_TOOLS)
    fields.only("modalities", (["text"],), "only text is produced")
    fields.close()
    return ask


def read_logprobs(fields: Fields) -> int | None:
    wants, top = fields.flag("logprobs"), fields.integer("top_logprobs", 0, MOST_LOGPROBS)
    if top and not wants:
        raise BadRequest("'top_logprobs' needs 'logprobs' to be true.", param="top_logprobs")
    return (top or 0) if wants else None


def read_turn(message: Any, where: str, pictures: list[PictureLink]) -> dict[str, Any]:
    """One message; its pictures are added to `pictures` in their order."""
    if not isinstance(message, dict):
        raise wrong_type(where, "an object")
    role = message.get("role")
    if role not in ROLES:
        raise BadRequest(f"'{where}.role' must be one of {', '.join(ROLES)}.", param=f"{where}.role")
    refuse_others(message, where, {"role", "content", "name"})
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not parts:
        raise BadRequest(f"'{where}.content' must be a string or a list of parts.", param=f"{where}.content")
    read = [
        read_part(part, f"{where}.content[{place}]", role == "user", pictures)
        for place, part in enumerate(parts)
    ]
    name = {"name": message["name"]} if message.get("name") is not None else {}
    return {"role": "system" if role == "developer" else role, "content": read, **name}


def read_part(part: Any, where: str, may_show: bool, pictures: list[PictureLink]) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        refuse_others(part, where, {"type", "text"})
        if not isinstance(part.get("text"), str):
            raise wrong_type(f"{where}.text", "a string")
        return {"type": "text", "text": part["text"]}
    if kind != "image_url":
        raise UnsupportedParameter(f"{where}.type", f"this model reads 'text' and 'image_url', not '{kind}'")
    if not may_show:
        raise BadRequest("Only messages of the user may hold pictures.", param=where)
    refuse_others(part, where, {"type", "image_url"})
    link, param = part.get("image_url"), f"{where}.image_url"
    if not isinstance(link, dict):
        raise wrong_type(param, "an object with a 'url'")
    refuse_others(link, param, {"url", "detail"})
    # A hint at a cost that does not exist here: the model's processor decides how much it looks at.
    if link.get("detail") not in (None, *DETAILS):
        raise BadRequest(f"'{param}.detail' must be one of {', '.join(DETAILS)}.", param=f"{param}.detail")
    pictures.append(PictureLink(link.get("url"), f"{param}.url"))
    return {"type": "image"}


def refuse_others(value: dict[str, Any], where: str, known: set[str]) -> None:
    for name in value.keys() - known:
        if value[name] is not None:
            raise UnsupportedParameter(f"{where}.{name}")
