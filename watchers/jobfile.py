"""What a job file asks for: from its bytes to a checked request. Pure.

The file holds ``{endpoint?, model, body, priority?, run_at?, metadata?}``, or without `body` the request body itself,
with `endpoint` and the other fields about the job beside its own. The rules are those of `POST /v1/jobs`.
"""

import time
from typing import Any

import orjson

from inferq import errors
from inferq.catalog import Catalog
from inferq.request import Request, check, unfold
from inferq.terms import terms_of

_STREAMING = ("stream", "stream_options", "stream_format")
"""Nobody reads along with a job file."""
_BOM = b"\xef\xbb\xbf"
_REMEDY = (
    "a file here is one job. Put each {0} into a file of its own, or run `inferq submit {1}`, which makes each {0} "
    "a job."
)


def parse(data: bytes) -> dict[str, Any]:
    """The JSON object in a file. Raises InvalidRequest, also for a file that is not written to its end."""
    data = data.removeprefix(_BOM)
    if not data.strip():
        raise errors.InvalidRequest("The file is empty.")
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if _is_lines(data):
            raise errors.InvalidRequest(
                f"The file holds several JSON values, one on each line: {_REMEDY.format('line', 'FILE.jsonl')}"
            ) from error
        raise errors.InvalidRequest(f"The file is not valid JSON: {error}.") from error
    if not isinstance(found, dict):
        many = f", not an array: {_REMEDY.format('item', 'FILE')}" if isinstance(found, list) else "."
        raise errors.InvalidRequest(f"The file must hold one JSON object{many}")
    return found


def _is_lines(data: bytes) -> bool:
    """Whether it begins as JSON Lines do: with a whole object on the first line, and more behind it."""
    first, _, rest = data.lstrip().partition(b"\n")
    try:
        return bool(rest.strip()) and isinstance(orjson.loads(first), dict)
    except orjson.JSONDecodeError:
        return False


def understand(found: dict[str, Any], catalog: Catalog) -> Request:
    """What the object asks for. Raises InvalidRequest, NotFound, NotReady."""
    terms = terms_of(found, now=time.time())
    endpoint, body = unfold(catalog, found)
    for name in _STREAMING:
        body.pop(name, None)
    return check(catalog, endpoint, body, terms=terms)
