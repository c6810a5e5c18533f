"""Bodies of `embeddings`."""

from typing import Any

from api.fields import ARRAY, INTEGER, STRING, Field
from api.schemas.chat import PROMPT_SCHEMA, check_prompt
from api.schemas.gateway import GATEWAY, MODEL
from inferq import errors

_MOST_INPUTS = 2048


def _input(value: Any, path: str) -> None:
    if value == "":
        raise errors.InvalidRequest(f"Invalid '{path}': the text is empty.", param=path)
    check_prompt(value, path)
    if isinstance(value, list) and isinstance(value[0], str | list) and len(value) > _MOST_INPUTS:
        raise errors.InvalidRequest(f"Invalid '{path}': more than {_MOST_INPUTS} inputs.", param=path)


EMBEDDING = {
    "model": MODEL,
    "input": Field(
        types=(STRING, ARRAY),
        required=True,
        doc="Texts or token ids to embed.",
        check=_input,
        schema=PROMPT_SCHEMA,
    ),
    "encoding_format": Field(
        types=(STRING,), choices=("float", "base64"), doc="Numbers, or base64 of little-endian 32-bit floats."
    ),
    "dimensions": Field(
        types=(INTEGER,), low=1, doc="Length of the vectors, for models that can shorten them."
    ),
    "user": Field(types=(STRING,), doc="A name for the end user; not used."),
    **GATEWAY,
}
