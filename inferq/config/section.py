"""The base of every configuration section: frozen, no unknown keys, and documented keys not built yet are refused.

A key whose feature does not exist in this release carries ``unbuilt(reason)``. It may be written with its default
value (files in circulation do that) and is refused with the reason when it is switched to anything else.
"""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True
    )

    @model_validator(mode="after")
    def _refuse_unbuilt(self) -> Self:
        for name, info in type(self).model_fields.items():
            extra = info.json_schema_extra
            reason = extra.get("unbuilt") if isinstance(extra, dict) else None
            if reason and getattr(self, name) != info.get_default(call_default_factory=True):
                raise ValueError(f"{name}: {reason}")
        return self


def unbuilt(default: Any, reason: str) -> Any:
    """A documented key whose feature is not built: only its default value is accepted."""
    return Field(default=default, json_schema_extra={"unbuilt": reason})
