"""Hooks: found, refused by version, and kept from losing or stalling anything."""

import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import inferq
from inferq import errors
from inferq.hooks import Incoming, Refused
from inferq.job import Job, JobState
from tests.hooks.conftest import Install, enabled, seen
from tests.queues.builders import eventually, spec

ASKED = Incoming(
    endpoint="chat/completions",
    model="demo-chat",
    lane="medium",
    tenant="t",
    body={"messages": [{"role": "user", "content": "Hello!"}]},
)
HANG = """
hold = threading.Event()
def before_accept(self, request):
    request.body["messages"][0]["content"] = "changed"
    self.hold.wait()
before_run = before_accept
"""


async def test_none_runs_unless_it_is_named(install: Install) -> None:
    install("note", "def after_accept(self, job): self.seen.append(job.id)")
    assert not enabled()
    assert enabled("note")


def test_one_that_is_not_installed_is_an_error(install: Install) -> None:
    install("note", "")
    with pytest.raises(errors.ConfigError, match=r"no hook 'other' is installed; known: .*note"):
        enabled("other")


def test_one_that_cannot_be_imported_is_an_error(install: Install) -> None:
    install("bad", "raise RuntimeError('no')")
    with pytest.raises(errors.ConfigError, match="'bad' cannot be loaded: no"):
        enabled("bad")


@pytest.mark.parametrize("requires", [">=99", "<0.0.1", "nonsense"])
def test_one_for_another_version_is_left_out(
    install: Install, requires: str, caplog: pytest.LogCaptureFixture
) -> None:
    install("old", "", requires)
    with caplog.at_level(logging.ERROR):
        assert not enabled("old")
    assert "the hook 'old' is left out" in caplog.text
    assert requires in caplog.text


def test_a_required_one_for_another_version_is_an_error(install: Install) -> None:
    install("guard", "required = True", ">=99")
    with pytest.raises(errors.ConfigError, match=f">=99, and this is {inferq.__version__}"):
        enabled("guard")


async def test_requests_are_changed_in_turn(install: Install) -> None:
    install("one", "def before_accept(self, request): request.body['n'] = 1")
    install("two", "def before_accept(self, request): request.body['n'] += 1; request.metadata['by'] = 'two'")
    changed = await enabled("one", "two").before_accept(ASKED)
    assert (changed.body["n"], changed.metadata) == (2, {"by": "two"})
    assert "n" not in ASKED.body


async def test_a_request_is_refused(install: Install) -> None:
    install("guard", "def before_accept(self, request): raise Refused('not this word', param='messages')")
    with pytest.raises(Refused, match="not this word"):
        await enabled("guard").before_accept(ASKED)


@pytest.mark.parametrize("how", ["raise ValueError('broken')", "sys.exit(1)", "raise KeyboardInterrupt"])
async def test_one_that_fails_is_passed_over(install: Install, how: str) -> None:
    install("bad", f"def before_accept(self, request): request.body.clear(); {how}")
    hooks = enabled("bad")
    assert (await hooks.before_accept(ASKED)).body == ASKED.body
    assert hooks.failures["bad", "before_accept"] == 1


async def test_without_a_required_one_nothing_is_accepted(install: Install) -> None:
    install("guard", "required = True\ndef before_accept(self, request): raise ValueError('broken')")
    with pytest.raises(errors.Unavailable, match="'guard'"):
        await enabled("guard").before_accept(ASKED)


async def test_one_that_hangs_is_left_behind(install: Install) -> None:
    install("slow", HANG)
    hooks = enabled("slow", timeout=0.05)
    assert (await hooks.before_accept(ASKED)).body["messages"][0]["content"] == "Hello!"
    job = Job(spec=spec(), state=JobState.RUNNING)
    await hooks.before_run(job)
    assert hooks.failures == {("slow", "before_accept"): 1, ("slow", "before_run"): 1}


async def test_one_that_never_comes_back_is_not_called_for_ever(install: Install) -> None:
    install("slow", HANG.replace("request.body", "self.seen.append(1); request.body"))
    hooks = enabled("slow", timeout=0.01)
    for _ in range(40):
        await hooks.before_accept(ASKED)
    assert hooks.failures["slow", "before_accept"] == 40
    assert len(seen("slow")) == 32


async def test_notices_arrive_in_order_and_outlive_failures(install: Install) -> None:
    install(
        "note",
        """
        def after_finish(self, job):
            self.seen.append(job.id)
            if len(self.seen) == 1: sys.exit(1)
        """,
    )
    hooks = enabled("note")
    jobs = [Job(spec=spec(), state=JobState.SUCCEEDED) for _ in range(3)]
    for job in jobs:
        hooks.after_finish(job)
    await eventually(lambda: len(seen("note")) == 3)
    assert seen("note") == [job.id for job in jobs]
    assert hooks.failures["note", "after_finish"] == 1


async def test_a_notice_that_hangs_holds_up_neither_us_nor_the_next(install: Install) -> None:
    install(
        "note",
        """
        hold = threading.Event()
        def after_accept(self, job):
            self.seen.append(job.id)
            if len(self.seen) == 1: self.hold.wait()
        """,
    )
    hooks = enabled("note", timeout=0.01)
    first, then = spec(), spec()
    hooks.after_accept(first)
    await eventually(lambda: seen("note"))

    def again() -> bool:
        hooks.after_accept(then)
        return len(seen("note")) > 1

    await eventually(again)
    assert seen("note")[1] == then.id
    assert hooks.failures["note", "after_accept"] == 1


async def test_calls_are_counted_by_how_they_came_out(install: Install) -> None:
    install(
        "odd",
        """
        hold = threading.Event()
        def before_accept(self, request):
            if request.tenant == "refused": raise Refused("no")
            if request.tenant == "hangs": self.hold.wait()
        def before_run(self, job):
            if job.attempt: raise Refused("too late for that")
        def after_finish(self, job):
            if job.attempt: raise ValueError("no")
        """,
    )
    hooks = enabled("odd", timeout=0.05)
    await hooks.before_accept(ASKED)
    with pytest.raises(Refused):
        await hooks.before_accept(replace(ASKED, tenant="refused"))
    for _ in range(33):
        await hooks.before_accept(replace(ASKED, tenant="hangs"))
    for attempt in (0, 1, 1):
        job = Job(spec=spec(), state=JobState.SUCCEEDED, attempt=attempt)
        await hooks.before_run(job)
        hooks.after_finish(job)
    await eventually(lambda: sum(hooks.counts.values()) == 41)
    assert hooks.counts == {
        ("odd", "before_accept", "ok"): 1,
        ("odd", "before_accept", "refused"): 1,
        ("odd", "before_accept", "timeout"): 32,
        ("odd", "before_accept", "dropped"): 1,
        ("odd", "before_run", "dropped"): 3,
        ("odd", "after_finish", "ok"): 1,
        ("odd", "after_finish", "failed"): 2,
    }


def test_a_process_ends_while_a_hook_hangs(install: Install, tmp_path: Path) -> None:
    install("slow", HANG)
    program = """
import asyncio
from inferq.config.sections import HookRules
from inferq.hooks import Hooks, Incoming

async def main():
    body = {"messages": [{"content": "Hello!"}]}
    asked = Incoming(endpoint="chat/completions", model="m", lane="low", tenant="t", body=body)
    hooks = Hooks(HookRules(enabled=["slow"], timeout=0.05))
    await hooks.before_accept(asked)
    print(dict(hooks.failures))

asyncio.run(main())
"""
    path = os.pathsep.join([str(tmp_path), str(Path(inferq.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "{('slow', 'before_accept'): 1}"
