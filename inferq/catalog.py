"""Which model a name stands for, and which endpoint takes which type of model. Pure; knows no HTTP."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from inferq import errors
from inferq.config import ModelSettings, Settings
from inferq.endpoints import ENDPOINTS, Endpoint, default_for
from inferq.engine import find_engine

LONGEST_ECHO = 200
"""Characters of an unknown name that an answer repeats."""


class Catalog:
    """The configured models by every name they have."""

    def __init__(self, settings: Settings):
        self._settings = settings
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

    def for_endpoint(self, name: str, endpoint: Endpoint) -> tuple[str, ModelSettings]:
        """Like `resolve`, and the model must be of a type that the endpoint takes, on an engine that offers it."""
        if endpoint.built_in:
            return endpoint.built_in, self._settings.served[endpoint.built_in]
        found, model = self.resolve(name)
        if model.type not in endpoint.takes:
            raise errors.InvalidRequest(
                f"The model {name!r} is of type {model.type} and cannot be used with /v1/{endpoint.path}; "
                f"use /v1/{default_for(model.type).path}.",
                param="model",
            )
        if endpoint.offered and endpoint.path not in self._offered(model):
            raise errors.NotFound(
                f"The engine {model.engine!r} of the model {name!r} does not offer /v1/{endpoint.path}.",
                param="model",
            )
        return found, model

    def endpoints_of(self, model: ModelSettings) -> list[str]:
        """Paths below /v1 that this model can be called with; none when its engine is not installed here."""
        offered = self._offered(model)
        return [
            path for path, endpoint in ENDPOINTS.items() if model.type in endpoint.takes and path in offered
        ]

    def _offered(self, model: ModelSettings) -> frozenset[str]:
        """What the model's engine says that it offers; nothing where it is not installed here."""
        try:
            return find_engine(self._settings.kind_of(model.engine)).endpoints
        except errors.ConfigError:
            return frozenset()

    def endpoint(self, named: Any, model: str) -> Endpoint:
        """The endpoint that a job names, with or without its version, or the one that its model is for."""
        if named is None:
            return default_for(self.resolve(model)[1].type)
        path = named.strip("/").removeprefix("openai/").removeprefix("v1/") if isinstance(named, str) else ""
        if path not in ENDPOINTS or ENDPOINTS[path].built_in:
            legal = ", ".join(path for path, endpoint in ENDPOINTS.items() if not endpoint.built_in)
            raise errors.InvalidRequest(
                f"Invalid value for 'endpoint': {named!r}. Legal values: {legal}.", param="endpoint"
            )
        return ENDPOINTS[path]

    def defaults(self, endpoint: Endpoint, model: ModelSettings) -> Mapping[str, Any]:
        """What a request gets for the fields that it leaves out: the model's own, over those of the installation."""
        general = self._settings.request_defaults.get(endpoint.path, {})
        own = model.request_defaults.get(endpoint.path, {})
        return {**general, **own} if own else general

    def _advice(self, name: str) -> str:
        near = get_close_matches(name, self._names, n=3)
        if near:
            return f" Did you mean {' or '.join(repr(each) for each in near)}?"
        known = sorted(self._names)
        return f" Models here: {', '.join(known[:10])}." if known else " No models are configured."
