"""Answers with pictures, as their caller wants to have them: links that expire, or base64.

Replicas leave pictures in the artifact store and put `artifact` where the engine had `b64_json`.
"""

import base64
from collections.abc import Callable
from typing import Any

import orjson

from storage.artifacts import ArtifactStore


async def rendered(
    data: bytes, form: str | None, artifacts: ArtifactStore, link: Callable[[str], str]
) -> bytes:
    """The body of an images answer. Raises NotFound, StoreUnavailable when a picture is to be in it and is gone."""
    answer = orjson.loads(data)
    for entry in _pictures(answer):
        await _render(entry, form, artifacts, link)
    return orjson.dumps(answer)


def linked(answer: Any, link: Callable[[str], str]) -> Any:
    """The same with links only, for an answer inside a job, which is changed."""
    for entry in _pictures(answer):
        entry["url"] = link(entry["artifact"])
    return answer


def _pictures(answer: Any) -> list[dict[str, Any]]:
    """The entries that have a picture; what an engine of somebody else's answers may have none, or another form."""
    entries = answer.get("data") if isinstance(answer, dict) else None
    found = entries if isinstance(entries, list) else []
    return [entry for entry in found if isinstance(entry, dict) and isinstance(entry.get("artifact"), str)]


async def _render(
    entry: dict[str, Any], form: str | None, artifacts: ArtifactStore, link: Callable[[str], str]
) -> None:
    sha256 = entry.pop("artifact")
    if form == "b64_json":
        entry["b64_json"] = base64.b64encode(
            b"".join([part async for part in artifacts.open_read(sha256)])
        ).decode()
    else:
        entry["url"] = link(sha256)
