"""The demo models: which are missing, how they are built, and what the chat model was taught.

Everything about them belongs to `workers.engines.demo`, which is run as a program.
"""

import json

from inferq import errors
from inferq.cli.stack.overrides import engine_python
from inferq.cli.stack.program import Program
from inferq.config import Settings

_PREFIX = "models/demo-"


def missing(settings: Settings) -> list[str]:
    """The folders of configured demo models that are not there."""
    sources = {model.source for model in settings.models.values() if model.source.startswith(_PREFIX)}
    return sorted(source for source in sources if not settings.under_home(source).exists())


def builder(settings: Settings) -> Program:
    """The program that builds them; it leaves complete ones alone. Raises ConfigError where it cannot run."""
    python = engine_python(settings, "text")
    if python is None:
        raise errors.ConfigError("the demo models cannot be built: engines.text.python is not set")
    if not python.exists():
        raise errors.ConfigError(
            f"the demo models cannot be built: there is no {python}; run scripts/install-engines"
        )
    out = str(settings.home / "models")
    argv = (str(python), "-m", "workers.engines.demo", "--out", out)
    return Program("demo", argv, stop_seconds=5.0, title="demo models")


def known_prompts(settings: Settings) -> list[str]:
    """Prompts that the demo chat model answers as taught; none when they cannot be found out."""
    try:
        found = json.loads(
            (settings.home / "models" / "demo-chat" / "prompts.json").read_text(encoding="utf-8")
        )
        return [str(prompt) for prompt in found]
    except (OSError, ValueError):
        return []
