"""Where settings come from: file, then environment, then flags; each overrides the one before.

`INFERQ_CONFIG` names the file (YAML, or JSON by its suffix), `INFERQ_HOME` the folder of all state, and
``INFERQ__API__PORT=9100`` overrides one key (the value is read as YAML). This is the only module that reads them.
"""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from inferq import errors
from inferq.config.settings import Settings

DEFAULT_FILE = "scheduler_config.yaml"


def load_settings(
    file: str | Path | None = None,
    *,
    home: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Read, merge and validate. `overrides` is nested like the file. Raises ConfigError that names each bad key."""
    path = Path(file or environ.get("INFERQ_CONFIG") or DEFAULT_FILE)
    explicit = bool(file or environ.get("INFERQ_CONFIG"))
    tree = _read(path) if path.exists() or explicit else {}
    _merge(tree, _from_environment(environ))
    _merge(tree, dict(overrides or {}))
    for internal in ("home", "root"):
        if internal in tree:
            raise errors.ConfigError(f"{path}: unknown key {internal}; set INFERQ_HOME instead")
    tree["home"] = Path(home or environ.get("INFERQ_HOME") or "data").absolute()
    tree["root"] = path.absolute().parent
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise errors.ConfigError(_explain(path, error)) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise errors.ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise errors.ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise errors.ConfigError(f"{path} must hold a mapping of sections, not a {type(tree).__name__}")
    return tree


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, text in sorted(environ.items()):
        if not name.startswith("INFERQ__"):
            continue
        *sections, key = name.removeprefix("INFERQ__").lower().split("__")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        try:
            branch[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise errors.ConfigError(f"{name}: {text!r} is not a YAML value") from error
    return tree


def _merge(tree: dict[str, Any], extra: Mapping[str, Any]) -> None:
    for key, value in extra.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        elif value is not None:
            tree[key] = value


def _explain(path: Path, error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown key {where}{_legal_keys(item['loc'])}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            lines.append(f"{where}: {message}" if where else message)
    return f"{path}: " + "; ".join(lines)


def _legal_keys(location: tuple[int | str, ...]) -> str:
    """The keys that are legal where an unknown one was met, nearest first."""
    section: Any = Settings
    for part in location[:-1]:
        field = section.model_fields.get(part) if _is_section(section) else None
        annotation = field.annotation if field else section
        arguments = [a for a in getattr(annotation, "__args__", ()) if _is_section(a)]
        section = arguments[0] if arguments else annotation
    if not _is_section(section):
        return ""
    legal = [name for name, field in section.model_fields.items() if not field.exclude]
    near = get_close_matches(str(location[-1]), legal, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{hint}; legal here: {', '.join(legal)}"


def _is_section(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)
