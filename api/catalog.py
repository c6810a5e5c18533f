"""Which model a name stands for, and which endpoint takes which type of model. Pure; knows no HTTP."""

from difflib import get_close_matches

from inferq import errors
from inferq.config import ModelSettings, Settings

TAKES: dict[str, frozenset[str]] = {
    "chat/completions": frozenset({"chat"}),
    "completions": frozenset({"chat", "completion"}),
    "embeddings": frozenset({"embedding"}),
}
"""Endpoint to the types of model it takes."""

DEFAULT_ENDPOINT = {"chat": "chat/completions", "completion": "completions", "embedding": "embeddings"}
"""Type of model to the endpoint a job without one means."""


LONGEST_ECHO = 200
"""Characters of an unknown name that an answer repeats."""


class Catalog:
    """The configured models by every name they have."""

    def __init__(self, settings: Settings):
        self._models = settings.models
        self._names = {name: name for name in settings.models}
        for name, model in settings.models.items():
            self._names.update(dict.fromkeys(model.aliases, name))

    @property
    def models(self) -> dict[str, ModelSettings]:
        return self._models

    def resolve(self, name: str) -> tuple[str, ModelSettings]:
        """The model's own name and its settings. Raises ModelNotFound, which tells near names."""
        found = self._names.get(name)
        if found is None:
            shown = name if len(name) <= LONGEST_ECHO else name[:LONGEST_ECHO] + "..."
            raise errors.ModelNotFound(
                f"The model {shown!r} does not exist.{self._advice(shown)}", param="model"
            )
        return found, self._models[found]

    def for_endpoint(self, name: str, endpoint: str) -> tuple[str, ModelSettings]:
        """Like `resolve`, and the model must be of a type that the endpoint takes."""
        found, model = self.resolve(name)
        if model.type not in TAKES[endpoint]:
            other = DEFAULT_ENDPOINT.get(model.type)
            advice = f"; use /v1/{other}" if other else ", which this release does not serve yet"
            raise errors.InvalidRequest(
                f"The model {name!r} is of type {model.type} and cannot be used with /v1/{endpoint}{advice}.",
                param="model",
            )
        return found, model

    def default_endpoint(self, name: str) -> str:
        """The endpoint of a job that names none."""
        _, model = self.resolve(name)
        endpoint = DEFAULT_ENDPOINT.get(model.type)
        if endpoint is None:
            raise errors.NotReady(
                f"Jobs for models of type {model.type} are not in this release.", param="model"
            )
        return endpoint

    def _advice(self, name: str) -> str:
        near = get_close_matches(name, self._names, n=3)
        if near:
            return f" Did you mean {' or '.join(repr(each) for each in near)}?"
        known = sorted(self._names)
        return f" Models here: {', '.join(known[:10])}." if known else " No models are configured."
