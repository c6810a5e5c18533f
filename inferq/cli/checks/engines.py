"""Engines: their environments, what installed packages add, and whether the models' files are there."""

import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator

from inferq.cli.checks.finding import Finding, fail, ok, warn
from inferq.cli.stack import demo_models
from inferq.cli.stack.overrides import engine_python
from inferq.config import Settings

_GROUP = "inferq.engines"
_INSTALL = {
    "vllm": "run scripts/install-vllm",
    "text": "run scripts/install-engines",
    "embed": "run scripts/install-engines",
}


def environments(settings: Settings) -> Iterator[Finding]:
    """A missing environment matters only where a model uses it."""
    used = {model.engine for model in settings.models.values()}
    for name in settings.engines:
        python = engine_python(settings, name)
        if python is None:
            continue
        advice = _INSTALL.get(name, f"set engines.{name}.python to the Python of its environment")
        if os.access(python, os.X_OK):
            yield ok("environments", f"{name}: {python}")
        elif name in used:
            yield fail("environments", f"{name}: there is no {python}", advice)
        else:
            yield ok("environments", f"{name}: not installed, and no model needs it ({advice})")


def entry_points(settings: Settings) -> Iterator[Finding]:
    known = {entry.name: entry for entry in importlib.metadata.entry_points(group=_GROUP)}
    for name, entry in sorted(known.items()):
        if importlib.util.find_spec(entry.module.partition(".")[0]) is None:
            yield warn("engines", f"{name}: there is no module {entry.module}", "install its package again")
    if known:
        yield ok("engines", ", ".join(sorted(known)))
        for name in sorted({model.engine for model in settings.models.values()} - set(known)):
            advice = f"install the package that adds it, or use one of {', '.join(sorted(known))}"
            yield fail("engines", f"a model uses the engine {name}, which nothing adds", advice)
    else:
        yield warn("engines", "inferq is not installed, so no entry points are seen", "run make install")


def models(settings: Settings) -> Iterator[Finding]:
    """Where the files of each model are, or what it needs in their place."""
    missing = demo_models.missing(settings)
    for name, model in settings.models.items():
        place = settings.under_home(model.source)
        without = _without_files(settings.kind_of(model.engine), model.source)
        if without:
            yield ok("models", f"{name}: {without}")
        elif model.source in missing:
            yield ok("models", f"{name}: will be made by inferq up ({place})")
        elif place.exists():
            yield ok("models", f"{name}: {place}")
        elif model.source.startswith(("models/", "/", ".")):
            yield fail(
                "models",
                f"{name}: there is no {place}",
                f"put the model there, or change models.{name}.source",
            )
        else:
            yield ok("models", f"{name}: {model.source}, fetched from the hub when it is loaded")


def _without_files(engine: str, source: str) -> str:
    """What a model is that needs no files of its own; empty for one that does."""
    if source.startswith(("http://", "https://")):
        return f"served at {source}"
    if engine == "speech" and source in ("espeak", "none"):
        return "the voice of espeak-ng, which comes with the engine's packages"
    return "needs no files" if engine == "noop" else ""
