"""Fields that the gateway reads on every job and takes out of the body before an engine sees it."""

from typing import Any

from inferq import errors
from inferq.endpoints.fields import INTEGER, OBJECT, STRING, Field

_MOST_PAIRS = 16
_LONGEST_KEY = 64
_LONGEST_VALUE = 512


def _metadata(value: dict[str, Any], path: str) -> None:
    if len(value) > _MOST_PAIRS:
        raise errors.InvalidRequest(f"Invalid '{path}': more than {_MOST_PAIRS} pairs.", param=path)
    for key, item in value.items():
        if not isinstance(item, str):
            raise errors.InvalidRequest(
                f"Invalid type for '{path}.{key}': expected a string.", param=f"{path}.{key}"
            )
        if len(key) > _LONGEST_KEY or len(item) > _LONGEST_VALUE:
            raise errors.InvalidRequest(
                f"Invalid '{path}': a key is longer than {_LONGEST_KEY} or a value than {_LONGEST_VALUE} characters.",
                param=path,
            )


MODEL = Field(types=(STRING,), required=True, doc="Name or alias of a model, see `GET /v1/models`.")

GATEWAY = {
    "priority": Field(
        types=(STRING, INTEGER),
        doc="Lane of the job: `high`, `medium`, `low`, or 0 (low) to 9 (high). The header `X-Priority` wins over it.",
    ),
    "service_tier": Field(
        types=(STRING,),
        doc="OpenAI's way to ask for a lane: `flex` is low, `priority` and `fast` are high, others medium.",
    ),
    "metadata": Field(
        types=(OBJECT,),
        doc="Up to 16 pairs of text, kept with the job.",
        check=_metadata,
        schema={"additionalProperties": {"type": "string"}, "maxProperties": _MOST_PAIRS},
    ),
}
