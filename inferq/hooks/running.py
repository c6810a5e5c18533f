"""Calling hooks so that none of them can lose or stall a job: in threads of their own, with a limit of time.

A hook that raises, hangs or ends its thread has failed: that is logged, and the job goes on, unless the hook is
`required` and was asked before the job was accepted. Every call is counted by how it came out. What cannot be guarded
against is a hook that ends the process.
"""

import asyncio
import copy
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from enum import StrEnum
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


class Call(StrEnum):
    """How a call of a hook came out. `refused`: the hook did not let a request in; `dropped`: it was not called, since
    too many calls wait for it or have not come back.
    """

    OK = "ok"
    REFUSED = "refused"
    FAILED = "failed"
    TIMEOUT = "timeout"
    DROPPED = "dropped"


Counts = Counter[tuple[str, str, str]]
"""Calls by hook, function and outcome."""


class _Failed(Exception):
    """The hook gave no answer."""

    def __init__(self, why: str, outcome: Call = Call.FAILED) -> None:
        super().__init__(why)
        self.outcome = outcome


class Hooks:
    """The hooks of one process."""

    def __init__(self, rules: HookRules) -> None:
        self._counts: Counts = Counter()
        self._counting = threading.Lock()
        self._limit = rules.timeout
        self._loaded = [
            (_Calls(name), hook, _Notices(self, name, hook)) for name, hook in load(rules.enabled)
        ]

    def __bool__(self) -> bool:
        return bool(self._loaded)

    @property
    def counts(self) -> Counts:
        """The calls since this process began."""
        with self._counting:
            return self._counts.copy()

    @property
    def failures(self) -> Counter[tuple[str, str]]:
        """Calls without an answer, by hook and function."""
        found: Counter[tuple[str, str]] = Counter()
        for (name, function, outcome), number in self.counts.items():
            if outcome not in (Call.OK, Call.REFUSED):
                found[name, function] += number
        return found

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
                self.count(calls.name, "before_accept", Call.OK)
            except errors.InferqError:
                self.count(calls.name, "before_accept", Call.REFUSED)
                raise
            except _Failed as error:
                self.failed(calls.name, "before_accept", error, error.outcome)
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
                self.count(calls.name, "before_run", Call.OK)
            except (_Failed, errors.InferqError) as error:
                outcome = error.outcome if isinstance(error, _Failed) else Call.FAILED
                self.failed(calls.name, "before_run", error, outcome)

    def after_finish(self, job: Job) -> None:
        self._notify("after_finish", job)

    def after_finishes(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self.after_finish(job)

    def failed(
        self, name: str, function: str, error: BaseException | str, outcome: Call = Call.FAILED
    ) -> None:
        self.count(name, function, outcome)
        log.warning("hook %r: %s failed: %s", name, function, error)

    def count(self, name: str, function: str, outcome: Call) -> None:
        """Also called by the threads of notices."""
        with self._counting:
            self._counts[name, function, outcome.value] += 1

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
                raise _Failed(f"{MOST_CALLS} calls of it have not come back", Call.DROPPED)
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
            raise _Failed(f"no answer within {limit:g} s", Call.TIMEOUT) from None
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
        self._doing = ""
        self._replaced = 0

    def put(self, function: str, value: Any, limit: float) -> None:
        began = self._busy_since
        if began is not None and time.monotonic() - began > limit and self._replaced <= MOST_REPLACED:
            why = f"a call has not come back within {limit:g} s"
            self._hooks.failed(self._name, self._doing, why, Call.TIMEOUT)
            self._replaced += 1
            self._thread, self._busy_since = None, None
        if self._replaced > MOST_REPLACED:
            self._hooks.count(self._name, function, Call.DROPPED)
            return
        try:
            self._waiting.put_nowait((function, value))
        except queue.Full:
            self._hooks.count(self._name, function, Call.DROPPED)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"hook-{self._name}", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        mine = threading.current_thread()
        while self._thread is mine:
            function, value = self._waiting.get()
            self._doing, self._busy_since = function, time.monotonic()
            failed: BaseException | None = None
            try:
                getattr(self._hook, function)(value)
            except BaseException as error:  # noqa: BLE001 - SystemExit too: it would end this thread unheard
                failed = error
            if self._thread is not mine:
                return  # counted already, as one that did not come back
            self._busy_since = None
            if failed is None:
                self._hooks.count(self._name, function, Call.OK)
            else:
                self._hooks.failed(self._name, function, f"{type(failed).__name__}: {failed}")
