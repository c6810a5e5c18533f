"""The committed JSON Schema: fresh, complete, and satisfied by the configuration that is shipped."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from inferq.cli.config import render_schema
from inferq.config import Settings, load_settings

ROOT = Path(__file__).parent.parent.parent
SCHEMA = json.loads((ROOT / "scheduler_config.schema.json").read_text("utf-8"))


def test_committed_schema_is_fresh() -> None:
    committed = (ROOT / "scheduler_config.schema.json").read_text("utf-8")
    assert committed == render_schema(), "run: inferq config schema > scheduler_config.schema.json"


def test_shipped_configuration_is_accepted() -> None:
    settings = load_settings(ROOT / "scheduler_config.yaml", environ={})
    kinds = {model.type for model in settings.models.values()}
    assert kinds == {"chat", "embedding", "rerank", "image", "video", "asr", "tts"}
    assert [name for name, model in settings.models.items() if model.warm] == ["demo-chat", "demo-embed"]


def test_shipped_configuration_names_its_schema() -> None:
    text = (ROOT / "scheduler_config.yaml").read_text("utf-8")
    assert "# yaml-language-server: $schema=./scheduler_config.schema.json" in text


def test_shipped_configuration_satisfies_the_schema() -> None:
    tree = yaml.safe_load((ROOT / "scheduler_config.yaml").read_text("utf-8"))
    assert list(violations(tree, SCHEMA)) == []


@pytest.mark.parametrize(
    "tree",
    [
        {"apii": {}},
        {"api": {"port": "many"}},
        {"api": {"prot": 1}},
        {"models": {"m": {"engine": "text"}}},
        {"models": {"m": {"engine": "text", "source": "x", "type": "poem"}}},
    ],
    ids=["section", "type", "key", "required", "choice"],
)
def test_schema_refuses(tree: dict[str, Any]) -> None:
    assert list(violations(tree, SCHEMA))


def test_every_key_has_a_description() -> None:
    bare = [path for path, info in leaves(Settings) if not info.description]
    assert bare == []


def test_schema_hides_what_is_no_key_of_the_file() -> None:
    assert not {"home", "root"} & set(SCHEMA["properties"])


def leaves(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, info in section.model_fields.items():
        if info.exclude:
            continue
        yield f"{prefix}{name}", info
        for inner in (info.annotation, *getattr(info.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from leaves(inner, f"{prefix}{name}.")


def violations(value: Any, schema: dict[str, Any], path: str = "$") -> Iterator[str]:
    """As much of JSON Schema as ours uses; an editor's own validator does the same."""
    if "$ref" in schema:
        schema = {**SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], **schema}
    if "anyOf" in schema:
        if all(list(violations(value, choice, path)) for choice in schema["anyOf"]):
            yield f"{path}: none of the choices fits {value!r}"
        return
    kinds = schema.get("type", [])
    if kinds and not any(is_kind(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        yield f"{path}: {value!r} is no {kinds}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is not one of {schema['enum']}"
    if isinstance(value, dict):
        yield from object_violations(value, schema, path)
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for number, item in enumerate(value):
            yield from violations(item, schema["items"], f"{path}[{number}]")


def object_violations(value: dict[str, Any], schema: dict[str, Any], path: str) -> Iterator[str]:
    properties = schema.get("properties", {})
    yield from (f"{path}: {name} is missing" for name in schema.get("required", ()) if name not in value)
    for name, item in value.items():
        rest = schema.get("additionalProperties", True)
        if name in properties:
            yield from violations(item, properties[name], f"{path}.{name}")
        elif rest is False:
            yield f"{path}: unknown key {name}"
        elif isinstance(rest, dict):
            yield from violations(item, rest, f"{path}.{name}")


def is_kind(value: Any, kind: str) -> bool:
    if kind in ("integer", "number") and isinstance(value, bool):
        return False
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    return isinstance(value, kinds[kind])
