"""What the flags of `inferq up` change, and the one configuration file that all its processes read.

The snapshot holds file, environment and flags merged, so no process can see another mixture. It must not
start anything.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr

from inferq import errors
from inferq.config import Settings

VLLM_ADVICE = "vLLM is not installed; run scripts/install-vllm"


def model_entry(settings: Settings, source: str) -> dict[str, Any]:
    """A model of the user's own, named after its folder or hub id: vLLM where it can be fast, else `text`."""
    folder = Path(source).expanduser()
    if source.startswith((".", "/", "~")) and not folder.exists():
        raise errors.ConfigError(f"--model: there is no folder {folder.absolute()}")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.absolute().name).strip("-")
    if name in settings.models:
        raise errors.ConfigError(f"--model: the configuration has a model {name} already; rename the folder")
    entry = {
        "engine": "vllm" if has_vllm(settings) and has_gpu() else "text",
        "source": str(folder.absolute()) if folder.exists() else source,
        "type": "chat",
        "warm": True,
        "description": f"Given by inferq up --model {source}",
    }
    return {name: entry}


def vllm_entry(settings: Settings) -> dict[str, Any]:
    """The demo chat model once more, run by vLLM."""
    if not has_vllm(settings):
        raise errors.ConfigError(f"--vllm: {VLLM_ADVICE}")
    demo = settings.models.get("demo-chat")
    if demo is None:
        raise errors.ConfigError("--vllm: the configuration has no model demo-chat")
    entry = {
        "engine": "vllm",
        "source": demo.source,
        "type": "chat",
        "slots": demo.slots,
        "context": demo.context,
        "warm": True,
        "options": {"enable_auto_tool_choice": True, "tool_call_parser": "hermes"},
        "description": "The demo chat model, run by vLLM.",
    }
    return {"demo-chat-vllm": entry}


def has_vllm(settings: Settings) -> bool:
    python = engine_python(settings, "vllm")
    return python is not None and python.exists()


def has_gpu() -> bool:
    return Path("/dev/nvidia0").exists()


def engine_python(settings: Settings, engine: str) -> Path | None:
    """The Python of an engine's environment, absolute; None when the configuration names none."""
    found = settings.engines.get(engine)
    return settings.root / found.python if found and found.python else None


def write_snapshot(settings: Settings) -> Path:
    """Write the merged configuration under the home, whole or not at all, readable by its owner only."""
    tree = _plain(settings.model_dump(exclude_unset=True))
    for engine in tree.get("engines", {}):
        python = engine_python(settings, engine)
        if python is not None:
            # In the file it was relative to the folder of the file.
            tree["engines"][engine]["python"] = str(python)
    place = settings.home / "run" / "config.yaml"
    draft = place.with_suffix(".new")
    with os.fdopen(
        os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(
            "# Written by `inferq up`: configuration file, environment and flags in one. Do not edit.\n"
        )
        yaml.safe_dump(tree, file, sort_keys=False, allow_unicode=True)
    draft.replace(place)
    return place


def child_environment(settings: Settings, snapshot: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of every process of the stack: overrides are in the snapshot already."""
    kept = {name: value for name, value in environ.items() if not name.startswith("INFERQ__")}
    return {
        **kept,
        "INFERQ_CONFIG": str(snapshot),
        "INFERQ_HOME": str(settings.home),
        "PYTHONUNBUFFERED": "1",
    }


def _plain(value: Any) -> Any:
    """What YAML can hold. Unlike pydantic's JSON mode it keeps secrets: the processes need them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value) if isinstance(value, Path) else value
