"""The models that a job falls back to when its own cannot serve it. It moves no job.

A chain belongs to the model that was asked for: the chains of the models in it are for jobs that ask for those. So two
models may name each other, and no job goes round in circles.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson

from inferq import errors, request
from inferq.admission import Admission
from inferq.catalog import Catalog
from inferq.config import Settings
from inferq.endpoints import ENDPOINTS
from inferq.job import JobSpec


@dataclass(frozen=True, slots=True)
class Reroute:
    """The same job for another model: the body as that one's engine gets it, and its size."""

    model: str
    body: bytes
    units: float


class Fallbacks:
    """`measure`, called with a request and `tenant=`, finds out how long or large its files are: that is not kept with
    a job. Without it there may be none.
    """

    def __init__(self, settings: Settings, measure: Callable[..., Awaitable[None]] | None = None) -> None:
        self._measure = measure
        self._catalog = Catalog(settings)
        self._admission = Admission(settings)
        self._models = settings.models

    async def reroute(self, spec: JobSpec, serving: str) -> Reroute | None:
        """The job for the first model after `serving` in its chain that could serve it; None when there is none.

        `spec.model` is the model that was asked for; `serving` is the one that has failed, which may be a later one.
        Raises Unavailable when its files cannot be looked at now.
        """
        asked = self._models.get(spec.model)
        chain = [spec.model, *(asked.fallback if asked else ())]
        after = chain[chain.index(serving) + 1 :] if serving in chain else []
        for model in after:
            try:
                return await self._for(spec, model)
            except errors.Unavailable:
                raise
            except errors.InferqError:
                continue  # too long for its context, over its limits, not offered by its engine
        return None

    async def _for(self, spec: JobSpec, model: str) -> Reroute:
        body = {**orjson.loads(spec.body), "model": model}
        checked = request.check(self._catalog, ENDPOINTS[spec.endpoint], body)
        if self._measure is not None:
            await self._measure(checked, tenant=spec.tenant)
        await self._admission.admit(checked)
        return Reroute(checked.model, checked.encoded, checked.units)
