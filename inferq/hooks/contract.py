"""The contract of a hook, for those who write one. An installed package registers an object with it under the entry
point group ``inferq.hooks``; it runs only where `hooks.enabled` names it.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

from inferq.errors import RefusedByHook as Refused
from inferq.job import Job, JobSpec

GROUP = "inferq.hooks"

__all__ = ["GROUP", "Hook", "Incoming", "Refused"]


@dataclass(slots=True, kw_only=True)
class Incoming:
    """A request that is about to become a job. A hook may change `body` and `metadata`; the rest is to be read.

    What it makes of the body is checked by the endpoint's own rules again. `tenant` is None for a job that somebody
    runs again with changes.
    """

    endpoint: str
    model: str
    lane: str
    tenant: str | None
    body: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)


class Hook(Protocol):
    """Any of the four functions may be left out. They are plain functions, called in threads, several at a time.

    `requires` says which versions of inferq the hook was made for, as pip writes it: ``>=0.1,<1``. `required`
    (False where it is missing): without this hook's answer no job is accepted.
    """

    requires: str
    required: bool

    def before_accept(self, request: Incoming) -> None:
        """In the gateway and the watcher, before files are taken. Raise `Refused` to refuse the request."""
        ...

    def after_accept(self, job: JobSpec) -> None:
        """There too, after the job was accepted. Nothing waits for it."""
        ...

    def before_run(self, job: Job) -> None:
        """In the replica, before each attempt, which waits for it."""
        ...

    def after_finish(self, job: Job) -> None:
        """Once the job's end is in the ledger; nothing waits for it. In the process that committed it, mostly the
        leading scheduler; for a cancel the gateway, and then `job` has neither its body nor a result.
        """
        ...
