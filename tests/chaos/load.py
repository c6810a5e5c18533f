"""The clients: threads that ask for a seeded mix of work and write down what they asked and what they were told.

They never judge. An operation without an answer is `unknown`: it may have happened or not. Each keeps its own journal.
"""

import json
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import httpx2

from tests.chaos.history import Journal, Operations
from tests.chaos.site import APIS, NARROW, TENANTS, WIDE, Site

CHAT = "/v1/chat/completions"
LANES = ("high", "medium", "low")
REMEMBERED = 400
BIG = 400
"""Words of a result that is too big for a record."""
PAUSE = 0.5
"""Seconds that a caller waits after a connection that broke."""


class Known:
    """Ids that somebody was told, for others to look at and cancel."""

    def __init__(self) -> None:
        self._ids: deque[tuple[str, str]] = deque(maxlen=REMEMBERED)
        self._failing: deque[tuple[str, str]] = deque(maxlen=REMEMBERED)
        self._durable: deque[tuple[str, str]] = deque(maxlen=REMEMBERED)

    def add(self, tenant: str, job: str, *, durable: bool = False, fails: bool = False) -> None:
        self._ids.append((tenant, job))
        if durable:
            self._durable.append((tenant, job))
        if fails:
            self._failing.append((tenant, job))

    def some(self, rng: random.Random) -> tuple[str, str] | None:
        """Often one of the newest, which may still be under way."""
        found = list(self._ids)
        return rng.choice(found[-10:] if rng.random() < 0.5 else found) if found else None

    def needed(self, tenant: str, rng: random.Random) -> list[str]:
        """One or two durable jobs of a tenant, new ones."""
        found = [job for owner, job in self._durable if owner == tenant][-6:]
        return rng.sample(found, min(len(found), rng.choice((1, 1, 2))))

    def failing(self, rng: random.Random) -> tuple[str, str] | None:
        """One that was asked to fail."""
        found = list(self._failing)
        return rng.choice(found) if found else None


class Client(threading.Thread):
    """One caller. The seed decides what it does, not when its answers come."""

    def __init__(
        self,
        site: Site,
        name: str,
        seed: str,
        known: Known,
        stopping: threading.Event,
        long: float,
        *,
        flows: bool = False,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.site = site
        self.rng = random.Random(f"{seed}/{name}")
        self.journal = Journal(site.journals, name)
        self.operations = Operations(self.journal)
        self.known = known
        self.stopping = stopping
        self.long = long
        self.flows = flows
        """Whether it also asks for jobs that wait for a time or for others, for groups, and for webhooks."""
        self.defect: BaseException | None = None
        self._count = 0
        self._http = {(api, tenant): site.call(api, tenant) for api in APIS for tenant in TENANTS}

    def run(self) -> None:
        try:
            while not self.stopping.wait(self.rng.uniform(0.02, 0.4)):
                self.step()
        except BaseException as error:  # noqa: BLE001 - shown by whoever joins
            self.defect = error
        finally:
            for http in self._http.values():
                http.close()
            self.journal.close()

    def step(self) -> None:
        kinds: dict[Callable[[], None], int] = {
            self.submit: 40, self.wait: 16, self.stream: 14, self.keep: 8,
            self.cancel: 10, self.look: 12, self.retry: 2,
        }  # fmt: skip
        if self.flows:
            kinds[self.group] = 5
        (chosen,) = self.rng.choices(list(kinds), list(kinds.values()))
        chosen()

    # What is asked

    def prompt(self) -> tuple[str, str, str]:
        """(marker, hooks, model) of a new piece of work."""
        self._count += 1
        hooks = [f"!delay={self.rng.choice((0, 0.05, 0.1, 0.2, 0.5))}"]
        chance = self.rng.random()
        model = WIDE if self.rng.random() < 0.75 else NARROW
        if chance < self.long and model == WIDE:
            hooks = [f"!delay={self.rng.uniform(1.0, 5.0):.1f}"]
        elif self.flows and chance < self.long + 0.06:
            hooks.append(f"!tokens={BIG}")
        elif chance > 0.995:
            hooks.append("!crash")
        elif chance > 0.975:
            hooks.append("!error")
        return f"{self.name}-{self._count}", " ".join(hooks), model

    def http(self, tenant: str) -> httpx2.Client:
        return self._http[self.rng.choice(APIS), tenant]

    def begin(self, kind: str, tenant: str) -> tuple[str, dict[str, Any]]:
        """Note a new piece of work; its operation and its body."""
        marker, hooks, model = self.prompt()
        self.marker = marker
        op = self.operations.invoke(kind, marker=marker, hooks=hooks, model=model, tenant=tenant)
        return op, {"model": model, "messages": [{"role": "user", "content": f"#{marker} {hooks}"}]}

    # Operations

    def submit(self) -> None:
        """A durable job. An unclear outcome is tried again: without a key that may make a second job, with one not."""
        tenant = self.rng.choice(TENANTS)
        marker, hooks, model = self.prompt()
        body = {"messages": [{"role": "user", "content": f"#{marker} {hooks}"}]}
        envelope = {
            "model": model,
            "body": body,
            "priority": self.rng.choice(LANES),
            "metadata": {"marker": marker},
        }
        wishes = self.wishes(tenant) if self.flows else {}
        envelope |= wishes
        keyed = self.rng.random() < 0.5
        headers = {"Idempotency-Key": marker} if keyed else {}
        facts = {"marker": marker, "hooks": hooks, "model": model, "tenant": tenant, "keyed": keyed}
        facts |= {"due": wishes.get("run_at"), "needs": wishes.get("depends_on")}
        for _ in range(3):
            op = self.operations.invoke("job", **facts)
            answer = self._ask(op, tenant, "POST", "/v1/jobs", json=envelope, headers=headers)
            if answer is not None:
                if answer.status_code == 202:
                    job = answer.json()["id"]
                    self.known.add(tenant, job, durable=True, fails="!error" in hooks)
                    self.operations.answer(op, "ok", job=job)
                else:
                    self._refused(op, answer)
                return

    def wishes(self, tenant: str) -> dict[str, Any]:
        """What some jobs ask for beside their request."""
        found: dict[str, Any] = {}
        chance = self.rng.random()
        if chance < 0.15 and (needs := self.known.needed(tenant, self.rng)):
            found = {"depends_on": needs, "on_dependency_failure": self.rng.choice(("fail", "run"))}
        elif 0.15 < chance < 0.3:
            found = {"run_at": time.time() + self.rng.uniform(0.5, 5.0)}
        if self.rng.random() < 0.3:
            found["webhook"] = self.site.mailbox.url
        return found

    def group(self) -> None:
        """Jobs that are accepted together, the later ones after the first; its key makes another try the same group."""
        tenant = self.rng.choice(TENANTS)
        jobs, members = [], {}
        for number in range(self.rng.choice((2, 3, 5))):
            marker, hooks, model = self.prompt()
            members[marker] = hooks
            body = {"messages": [{"role": "user", "content": f"#{marker} {hooks}"}]}
            jobs.append({"model": model, "body": body, "metadata": {"marker": marker}})
            if number and self.rng.random() < 0.6:
                jobs[-1]["depends_on"] = ["#0"]
        name = f"group-{next(iter(members))}"
        wanted = {"jobs": jobs, "metadata": {"marker": name}, "webhook": self.site.mailbox.url}
        for _ in range(3):
            op = self.operations.invoke("group", marker=name, members=members, tenant=tenant, keyed=True)
            headers = {"Idempotency-Key": name}
            answer = self._ask(op, tenant, "POST", "/v1/groups", json=wanted, headers=headers)
            if answer is not None:
                if answer.status_code == 202:
                    self.operations.answer(op, "ok", group=answer.json()["id"])
                else:
                    self._refused(op, answer)
                return

    def wait(self) -> None:
        """A call that is awaited on its connection."""
        tenant = self.rng.choice(TENANTS)
        op, body = self.begin("call", tenant)
        answer = self._ask(op, tenant, "POST", CHAT, json=body, headers=self._lane())
        if answer is None:
            return
        if answer.status_code != 200:
            self._refused(op, answer)
            return
        text = answer.json()["choices"][0]["message"]["content"]
        self.operations.answer(op, "ok", job=answer.headers["X-Job-Id"], text=text)

    def stream(self) -> None:
        """A stream, read to its end."""
        self._stream("stream", {})

    def keep(self) -> None:
        """A stream whose caller leaves after its first words; the work goes on."""
        self._stream("kept", {"X-On-Disconnect": "keep"})

    def _stream(self, kind: str, headers: dict[str, str]) -> None:
        tenant = self.rng.choice(TENANTS)
        marker, hooks, model = self.prompt()
        hooks = (
            hooks.partition(" !tokens")[0]
            + f" !tokens={self.rng.choice((3, 10, 40))} !interval={self.rng.choice((0.01, 0.05))}"
        )
        op = self.operations.invoke(kind, marker=marker, hooks=hooks, model=model, tenant=tenant)
        body = {
            "model": model,
            "messages": [{"role": "user", "content": f"#{marker} {hooks}"}],
            "stream": True,
        }
        words: list[str] = []
        end, job = "cut", None
        try:
            with self.http(tenant).stream("POST", CHAT, json=body, headers=headers | self._lane()) as answer:
                if answer.status_code != 200:
                    answer.read()
                    self._refused(op, answer)
                    return
                job = answer.headers["X-Job-Id"]
                for line in answer.iter_lines():
                    end = _take(line, words) or end
                    if kind == "kept" and words:
                        self.known.add(tenant, job)
                        end = "left"
                        break
        except httpx2.TransportError as error:
            self._no_answer(op, error, job=job, text=" ".join(words))
            return
        self.operations.answer(op, "ok", job=job, text=" ".join(words), end=end)

    def cancel(self) -> None:
        found = self.known.some(self.rng)
        if found is None:
            return
        tenant, job = found
        op = self.operations.invoke("cancel", job=job, tenant=tenant)
        answer = self._ask(op, tenant, "POST", f"/v1/jobs/{job}/cancel")
        self._state(op, answer)

    def look(self) -> None:
        found = self.known.some(self.rng)
        if found is None:
            return
        tenant, job = found
        op = self.operations.invoke("look", job=job, tenant=tenant)
        answer = self._ask(op, tenant, "GET", f"/v1/jobs/{job}")
        self._state(op, answer)

    def retry(self) -> None:
        """Run a failed job again: the one way out of an end."""
        found = self.known.failing(self.rng)
        if found is None:
            return
        tenant, job = found
        op = self.operations.invoke("retry", job=job, tenant=tenant)
        answer = self._ask(op, tenant, "POST", f"/v1/jobs/{job}/retry")
        self._state(op, answer)

    def _state(self, op: str, answer: httpx2.Response | None) -> None:
        if answer is None:
            return
        if answer.status_code not in (200, 202):
            self._refused(op, answer)
            return
        job = answer.json()
        self.operations.answer(
            op, "ok", state=job["state"], generation=job["generation"], attempt=job["attempt"]
        )

    def _ask(self, op: str, tenant: str, method: str, path: str, **more: Any) -> httpx2.Response | None:
        try:
            return self.http(tenant).request(method, path, **more)
        except httpx2.TransportError as error:
            self._no_answer(op, error)
            return None

    def _no_answer(self, op: str, error: Exception, **facts: Any) -> None:
        self.operations.answer(op, "unknown", why=f"{type(error).__name__}: {error}", **facts)
        self.stopping.wait(PAUSE)

    def _refused(self, op: str, answer: httpx2.Response) -> None:
        try:
            error = answer.json()["error"]
        except (ValueError, KeyError, TypeError):
            error = {"code": None, "message": answer.text[:200]}
        self.operations.answer(
            op,
            "refused",
            status=answer.status_code,
            code=error.get("code"),
            message=error.get("message"),
            job=answer.headers.get("X-Job-Id"),
            retry_after=answer.headers.get("Retry-After"),
        )

    def _lane(self) -> dict[str, str]:
        return {"X-Priority": self.rng.choice(LANES)}


def _take(line: str, words: list[str]) -> str | None:
    """Read one line of a stream; how it ended, if this is its end."""
    if not line.startswith("data: "):
        return None
    if line == "data: [DONE]":
        return "done"
    event = json.loads(line.removeprefix("data: "))
    if "error" in event:
        return f"error {event['error'].get('code')}"
    words.extend((event["choices"][0]["delta"].get("content") or "").split())
    return None
