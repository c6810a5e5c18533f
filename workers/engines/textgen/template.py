"""The prompt of a chat, written by the model's own chat template.

A caller may set the template's variables. What `apply_chat_template` takes as parameters is not for callers: one of
them is the template itself, which is a program. Must not know tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import signature
from typing import Any

from workers.engines.failures import BadRequest, UnsupportedParameter


def render(
    writer: Any, messages: Iterable[Mapping[str, Any]], variables: Mapping[str, Any], **given: Any
) -> str:
    """The prompt, up to where the model goes on; `writer` is a tokenizer or a processor.

    Raises BadRequest where the template refuses, UnsupportedParameter for what is no variable of a template.
    """
    for name in sorted(variables.keys() & parameters(writer)):
        raise UnsupportedParameter(f"chat_template_kwargs.{name}", "only the template's variables can be set")
    try:
        text: str = writer.apply_chat_template(
            [dict(message) for message in messages],
            add_generation_prompt=True,
            tokenize=False,
            **given,
            **variables,
        )
    except Exception as error:
        raise BadRequest(f"The chat template refused the messages: {error}", param="messages") from error
    return text


def parameters(writer: Any) -> frozenset[str]:
    """The parameters of `apply_chat_template`, also those that a subclass passes on without naming them."""
    kinds = [vars(kind) for kind in type(writer).__mro__]
    methods = [members["apply_chat_template"] for members in kinds if "apply_chat_template" in members]
    return frozenset(name for method in methods for name in signature(method).parameters)
