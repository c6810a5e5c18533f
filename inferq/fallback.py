"""The models that a job falls back to when its own cannot serve it. Pure; it moves no job.

A chain belongs to the model that was asked for: the chains of the models in it are for jobs that ask for those. So two
models may name each other, and no job goes round in circles.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from inferq import errors, request
from inferq.admission import Admission
from inferq.catalog import Catalog
from inferq.config import ModelSettings, Settings
from inferq.endpoints import ENDPOINTS
from inferq.job import JobSpec

Chains = Mapping[str, Sequence[str]]

CODES = frozenset({"engine_crashed", "engine_load_failed", "internal_error", "out_of_memory", "replica_lost"})
"""Failures that another model may not have. What is wrong with a request is wrong with it everywhere, and what ran too
long has used its time."""


@dataclass(frozen=True, slots=True)
class Reroute:
    """The same job for another model: the body as that one's engine gets it, and its size."""

    model: str
    body: bytes
    units: float


def check(models: Mapping[str, ModelSettings], chains: Chains) -> None:
    """Raise ValueError for a chain that names an unknown model, one of another type, itself, or one model twice."""
    for name, chain in chains.items():
        where = f"models.{name}.fallback"
        for place, other in enumerate(chain):
            if other not in models:
                raise ValueError(f"{where}: there is no model {other!r}")
            if models[other].type != models[name].type:
                kinds = f"{models[other].type}, {name!r} of type {models[name].type}"
                raise ValueError(f"{where}: {other!r} is of type {kinds}")
            if other == name or other in chain[:place]:
                raise ValueError(f"{where}: {other!r} was tried before it comes again")


class Fallbacks:
    def __init__(self, settings: Settings, chains: Chains) -> None:
        self._catalog = Catalog(settings)
        self._admission = Admission(settings)
        self._chains = chains

    async def reroute(self, spec: JobSpec, serving: str) -> Reroute | None:
        """The job for the first model after `serving` in its chain that could serve it; None when there is none.

        `spec.model` is the model that was asked for; `serving` is the one that has failed, which may be a later one.
        """
        chain = [spec.model, *self._chains.get(spec.model, ())]
        after = chain[chain.index(serving) + 1 :] if serving in chain else []
        for model in after:
            try:
                return await self._for(spec, model)
            except errors.InferqError:
                continue  # too long for its context, over its limits, not offered by its engine
        return None

    async def _for(self, spec: JobSpec, model: str) -> Reroute:
        body = {**orjson.loads(spec.body), "model": model}
        checked = request.check(self._catalog, ENDPOINTS[spec.endpoint], body)
        await self._admission.admit(checked)
        return Reroute(checked.model, checked.encoded, checked.units)
