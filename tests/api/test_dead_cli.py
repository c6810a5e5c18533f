"""`inferq dead` against an API that serves."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from inferq.config import Settings
from tests.api.stack import CHAT, Replica, Stack, recorded

ROOT = Path(__file__).parents[2]
Bury = Callable[..., Awaitable[str]]


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def bury(stack: Stack, replica: Replica, settings: Settings) -> Bury:
    async def made(**changes: Any) -> str:
        job_id = await stack.submit(**changes)
        await replica.fail(await replica.claim())
        await recorded(settings, stack.context)
        return job_id

    return made


async def inferq_dead(stack: Stack, *arguments: str, who: str = "admin") -> Ended:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("INFERQ")}
    env = {**clean, "PYTHONPATH": str(ROOT), "INFERQ_URL": stack.url, "INFERQ_API_KEY": stack.keys[who]}
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "inferq", "dead", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**env, "TERM": "dumb"},
    )
    out, err = await program.communicate()
    assert program.returncode is not None
    return Ended(program.returncode, out.decode(), err.decode())


async def test_list_groups_and_show(stack: Stack, bury: Bury) -> None:
    job_id = await bury()
    listed = await inferq_dead(stack, "list", "--since", "1h")
    assert job_id in listed.out
    assert "engine_error the engine failed" in listed.out
    assert [job["id"] for job in (await inferq_dead(stack, "list", "--json")).json["data"]] == [job_id]
    assert (await inferq_dead(stack, "list", "--code", "none")).out == ""
    grouped = await inferq_dead(stack, "groups")
    assert grouped.out.splitlines()[1].split()[:3] == ["1", "demo-chat", "engine_error"]
    assert (await inferq_dead(stack, "groups", "--json")).json["data"][0]["example"] == job_id
    assert (await inferq_dead(stack, "show", job_id, "--body")).json == CHAT
    shown = (await inferq_dead(stack, "show", job_id)).out
    assert "engine_error" in shown
    assert re.search(r"^ended +20.* ago\) *$", shown, re.MULTILINE)
    assert "Say hello." in shown


async def test_each_filter_reaches_the_server(stack: Stack, bury: Bury) -> None:
    await bury()
    own = ("--model", "demo-chat", "--lane", "medium", "--tenant", "user", "--source", "api")
    assert len((await inferq_dead(stack, "list", *own, "--json")).json["data"]) == 1
    others = (("-m", "x"), ("-l", "high"), ("--tenant", "x"), ("--source", "file:x"), ("--until", "1h"))
    for other in others:
        assert (await inferq_dead(stack, "list", *other, "--json")).json["data"] == [], other


async def test_requeue_by_filter_in_more_calls_than_one(
    stack: Stack, bury: Bury, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    buried = [await bury() for _ in range(3)]
    looked = await inferq_dead(stack, "requeue", "--model", "demo-chat", "--dry-run")
    assert looked.out == "would requeue 3, refused 0\n"
    refused = await inferq_dead(stack, "requeue", "--all")
    assert (refused.code, refused.out) == (3, "")
    assert "requeue 3 jobs: add --yes" in refused.err
    edits = ("--body", '{"max_tokens": 7}', "-p", "low")
    done = await inferq_dead(stack, "requeue", "--code", "engine_error", *edits, "--yes", "--json")
    assert (done.code, done.json["ids"], done.json["has_more"]) == (0, buried, False)
    spec = (await replica.claim()).job.spec
    assert (json.loads(spec.body)["max_tokens"], spec.lane) == (7, "low")


async def test_what_is_refused_is_told_and_fails_the_command(stack: Stack, bury: Bury) -> None:
    job_id = await bury()
    done = await inferq_dead(stack, "requeue", job_id, "--to-model", "nobody", "--yes")
    assert (done.code, done.out) == (6, "requeued 0, refused 1\n")
    assert f"{job_id}  model_not_found" in done.err


async def test_purge(stack: Stack, bury: Bury) -> None:
    job_id = await bury()
    assert (await inferq_dead(stack, "purge", job_id, "--yes", who="user")).code == 4
    unnamed = await inferq_dead(stack, "purge", "--yes")
    assert unnamed.code == 3
    assert "--model" in unnamed.err
    assert "by --all" in unnamed.err
    assert "purge 1 job: add --yes" in (await inferq_dead(stack, "purge", "--all")).err
    assert (await inferq_dead(stack, "purge", "--all", "--dry-run")).out == "would purge 1\n"
    assert (await inferq_dead(stack, "purge", "--until", "1h", "--yes")).out == "purged 0\n"
    assert (await inferq_dead(stack, "purge", "--code", "engine_error", "--yes")).out == "purged 1\n"
    assert (await inferq_dead(stack, "list", "--json")).json["data"] == []
