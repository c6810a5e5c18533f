"""Calling hooks so that none of them can lose or stall a job: in threads of their own, with a limit of time.

A hook that raises, hangs or ends its thread has failed: that is logged and counted, and the job goes on, unless the
hook is `required` and was asked before the job was accepted. What cannot be guarded against is a hook that ends the
process.
"""

import asyncio
import copy
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from inferq import errors
from inferq.config.sections import HookRules
from inferq.hooks.contract import Incoming
from inferq.hooks.loading import load
from inferq.job import Job, JobSpec

log = logging.getLogger("inferq.hooks")

MOST_CALLS = 32
"""Calls of one hook that may be under way; a hook that never comes back is not called any more from then on."""
BACKLOG = 1000
"""Notices that may wait for one hook; more are dropped."""
MOST_REPLACED = 3
"""Threads that a hook may keep for itself before it gets no further notices."""


class _Failed(Exception):
    """The hook gave no answer."""


class Hooks:
    """The hooks of one process. `failures` counts them by (hook, function)."""

    def __init__(self, rules: HookRules) -> None:
        self.failures: Counter[tuple[str, str]] = Counter()
        self._limit = rules.timeout
        self._loaded = [
            (_Calls(name), hook, _Notices(self, name, hook)) for name, hook in load(rules.enabled)
        ]

    def __bool__(self) -> bool:
        return bool(self._loaded)

    async def before_accept(self, incoming: Incoming) -> Incoming:
        """The request as the hooks leave it. Raises what they refuse it with, and Unavailable for a required one that
        failed.
        """
        for calls, hook, _ in self._loaded:
            function = getattr(hook, "before_accept", None)
            if function is None:
                continue
            # A copy: one that is called in vain may go on changing it.
            given = copy.deepcopy(incoming)
            try:
                await calls.call(function, given, self._limit)
                incoming = replace(incoming, body=given.body, metadata=given.metadata)
            except _Failed as error:
                self.failed(calls.name, "before_accept", error)
                if getattr(hook, "required", False):
                    raise errors.Unavailable(
                        f"The hook {calls.name!r}, without which nothing is accepted here, gave no answer."
                    ) from error
        return incoming

    def after_accept(self, spec: JobSpec) -> None:
        self._notify("after_accept", spec)

    async def before_run(self, job: Job) -> None:
        """Returns when all hooks have, or their time is over."""
        for calls, hook, _ in self._loaded:
            function = getattr(hook, "before_run", None)
            if function is None:
                continue
            try:
                await calls.call(function, job, self._limit)
            except (_Failed, errors.InferqError) as error:
                self.failed(calls.name, "before_run", error)

    def after_finish(self, job: Job) -> None:
        self._notify("after_finish", job)

    def failed(self, name: str, function: str, error: BaseException | str) -> None:
        self.failures[name, function] += 1
        log.warning("hook %r: %s failed: %s", name, function, error)

    def _notify(self, function: str, value: Any) -> None:
        for _, hook, notices in self._loaded:
            if hasattr(hook, function):
                notices.put(function, value, self._limit)


class _Calls:
    """Calls that somebody waits for, each in a thread of its own that nobody waits for at the end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._under_way = 0
        self._lock = threading.Lock()

    async def call(self, function: Callable[[Any], object], value: Any, limit: float) -> None:
        """Raises _Failed, and the errors of `inferq.errors` that the function raises."""
        with self._lock:
            if self._under_way >= MOST_CALLS:
                raise _Failed(f"{MOST_CALLS} calls of it have not come back")
            self._under_way += 1
        loop = asyncio.get_running_loop()
        done: asyncio.Future[BaseException | None] = loop.create_future()

        def tell(error: BaseException | None) -> None:
            if not done.done():
                done.set_result(error)

        def work() -> None:
            error: BaseException | None = None
            try:
                function(value)
            except BaseException as raised:  # noqa: BLE001 - SystemExit too: it would end this thread unheard
                error = raised
            with self._lock:
                self._under_way -= 1
            if not loop.is_closed():
                loop.call_soon_threadsafe(tell, error)

        threading.Thread(target=work, name=f"hook-{self.name}", daemon=True).start()
        try:
            async with asyncio.timeout(limit):
                error = await done
        except TimeoutError:
            raise _Failed(f"no answer within {limit:g} s") from None
        if isinstance(error, errors.InferqError):
            raise error
        if error is not None:
            raise _Failed(f"{type(error).__name__}: {error}") from error


class _Notices:
    """Notices that nobody waits for, one after the other in one thread, which is made when it is first needed."""

    def __init__(self, hooks: Hooks, name: str, hook: Any) -> None:
        self._hooks = hooks
        self._name = name
        self._hook = hook
        self._waiting: queue.Queue[tuple[str, Any]] = queue.Queue(BACKLOG)
        self._thread: threading.Thread | None = None
        self._busy_since: float | None = None
        self._replaced = 0

    def put(self, function: str, value: Any, limit: float) -> None:
        began = self._busy_since
        if began is not None and time.monotonic() - began > limit and self._replaced <= MOST_REPLACED:
            self._hooks.failed(self._name, function, f"a call has not come back within {limit:g} s")
            self._replaced += 1
            self._thread, self._busy_since = None, None
        if self._replaced > MOST_REPLACED:
            self._hooks.failures[self._name, function] += 1
            return
        try:
            self._waiting.put_nowait((function, value))
        except queue.Full:
            self._hooks.failures[self._name, function] += 1
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"hook-{self._name}", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        mine = threading.current_thread()
        while self._thread is mine:
            function, value = self._waiting.get()
            self._busy_since = time.monotonic()
            try:
                getattr(self._hook, function)(value)
            except BaseException as error:  # noqa: BLE001 - SystemExit too: it would end this thread unheard
                self._hooks.failed(self._name, function, f"{type(error).__name__}: {error}")
            if self._thread is mine:
                self._busy_since = None
