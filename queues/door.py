"""What every checked request passes before it becomes a job, whichever way it came. It submits nothing.

The cheap refusals come first, the files after them: they may have to be fetched.
"""

import contextlib

from inferq import errors
from inferq.admission import Admission
from inferq.config import Settings
from inferq.hooks import Hooks, Incoming
from inferq.request import Request
from queues.queue import JobQueue
from queues.room import Room
from storage.media import MediaStore


class Door:
    def __init__(
        self, settings: Settings, queue: JobQueue, media: MediaStore, hooks: Hooks | None = None
    ) -> None:
        self._hooks = hooks
        self._queue = queue
        self._media = media
        self._room = Room(queue)
        self._admission = Admission(settings)

    async def admit(
        self,
        request: Request,
        *,
        tenant: str | None,
        unattended: bool = False,
        bounded: bool = True,
        host: str | None = None,
    ) -> None:
        """Take the files of a request and encode its body. `unattended`: its caller does not wait for the answer.

        `tenant` is whose bounds hold, unless it is not `bounded` by what waits now; None for a job that was accepted
        before, for which none do. `host` is where the caller reached this server.

        1. A model that no device can hold. 2. Hooks, which may change the request. 3. A queue that is full already,
        where there are files to take and no answer may be in the cache. 4. The files. 5. What the model can never
        serve.

        Raises what hooks raise, InvalidRequest, ModelTooLarge, QueueFull (its `details` name the model),
        StoreUnavailable, Unavailable.
        """
        await self._room.refuse_too_big(request.model, request.settings)
        if self._hooks:
            await self._ask_hooks(self._hooks, request, tenant)
        if bounded and tenant is not None and request.places() and not request.endpoint.cached(request.body):
            await self._refuse_full(request, tenant)
        await self._media.take_all(request, tenant=tenant or "", host=host)
        if unattended:
            request.endpoint.unattended(request.body)
        await self._admission.admit(request)

    async def _ask_hooks(self, hooks: Hooks, request: Request, tenant: str | None) -> None:
        asked = Incoming(
            endpoint=request.endpoint.path,
            model=request.model,
            lane=request.lane,
            tenant=tenant,
            body=request.body,
            metadata=request.metadata,
        )
        answer = await hooks.before_accept(asked)
        if (answer.body, answer.metadata) != (request.body, request.metadata):
            request.change(answer.body, answer.metadata)

    async def _refuse_full(self, request: Request, tenant: str) -> None:
        # What is to be done without Redis is for the submission to say.
        with contextlib.suppress(errors.QueueUnavailable):
            await self._queue.refuse_full(request.model, tenant, request.lane)
