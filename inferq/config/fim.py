"""Filling in the middle: how a prompt and what comes after it are put before a model that was taught to. Pure."""

import re
from typing import Annotated

from pydantic import AfterValidator

TEMPLATES = {
    "codellama": "<PRE> {prefix} <SUF>{suffix} <MID>",
    "deepseek": "<｜fim▁begin｜>{prefix}<｜fim▁hole｜>{suffix}<｜fim▁end｜>",
    "qwen": "<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>",
    "starcoder": "<fim_prefix>{prefix}<fim_suffix>{suffix}<fim_middle>",
}
"""By a short name, the forms that the makers of these models give."""

_PLACES = re.compile(r"\{(prefix|suffix)\}")


def template(name: str) -> str:
    """The template of a name, or the template itself. Raises ValueError unless it has both places, each once."""
    made = TEMPLATES.get(name, name)
    if sorted(_PLACES.findall(made)) != ["prefix", "suffix"]:
        known = ", ".join(TEMPLATES)
        raise ValueError(
            f"{name!r} is none of {known}, and no text with {{prefix}} and {{suffix}}, each once"
        )
    return made


def fill(form: str, prefix: str, suffix: str) -> str:
    """In one pass: what callers write may look like a place."""
    parts = {"prefix": prefix, "suffix": suffix}
    return _PLACES.sub(lambda place: parts[place[1]], form)


FimTemplate = Annotated[str, AfterValidator(template)]
