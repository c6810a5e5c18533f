"""Which text an embedding model wants before an input: asked for by `prompt_name` or by `input_type`.

Owns the names that callers use for the two sides of a search. Must not know tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workers.engines.failures import BadRequest
from workers.engines.fields import Fields

# Words of other services for the two roles, and the names under which models keep their prompts.
QUERY, DOCUMENT = ("query", "search_query"), ("document", "passage", "corpus", "search_document")
ROLES: Mapping[str, tuple[str, ...]] = {**dict.fromkeys(QUERY, QUERY), **dict.fromkeys(DOCUMENT, DOCUMENT)}


@dataclass(frozen=True)
class Prompts:
    """The prompts of one model by name, and the one that is used when nothing is asked for."""

    texts: Mapping[str, str]
    default: str

    @classmethod
    def of(cls, model: Any, configured: Mapping[str, Any]) -> Prompts:
        """Those of the model's folder; the configured ones add to them and replace them."""
        for name, text in configured.items():
            if not isinstance(text, str):
                raise ValueError(f"option 'prompts': {name!r} must be a text")
        texts = {**model.prompts, **configured}
        return cls(texts, texts.get(model.default_prompt_name or "", ""))

    def read(self, fields: Fields) -> tuple[str, str | None]:
        """The prompt of one request, and the field that asked for it. Raises BadRequest for a name nobody has."""
        name, role = fields.text("prompt_name"), fields.text("input_type")
        if name is not None and role is not None:
            raise BadRequest("Give one of 'prompt_name' and 'input_type'.", param="prompt_name")
        if name is not None:
            return self._first((name,), "prompt_name", name), "prompt_name"
        if role is not None:
            return self._first(ROLES.get(role, (role,)), "input_type", role), "input_type"
        return self.default, None

    def _first(self, names: tuple[str, ...], field: str, asked: str) -> str:
        """Libraries fill `query` and `document` in with empty texts, so one that says something goes first."""
        found = [self.texts[name] for name in (asked, *names) if name in self.texts]
        if not found:
            known = ", ".join(sorted(self.texts)) or "none"
            raise BadRequest(f"'{field}': this model has no prompt '{asked}'. It has: {known}.", param=field)
        return next(filter(None, found), "")
