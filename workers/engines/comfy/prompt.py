"""The life of one prompt on a ComfyUI: submitted, followed to its end, and ended early when its caller leaves.

    submit -> waits in the server's queue -> runs -> in the history: success, or an error
                      |                       |
                      +------- cancel --------+      neither in the queue nor in the history: lost

The websocket is opened before the prompt is sent, so no message is missed; but the history decides, because it also
knows what came while the connection was down. The prompt's id is ours, so that a prompt can be ended whose answer
never came.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workers.engines.comfy.events import Connection, Ear
from workers.engines.comfy.server import MOST_SHOWN, ComfyFault, Refused, Server
from workers.engines.comfy.workflow import Graph
from workers.engines.failures import BadRequest, EngineError

# Seconds between two looks at the history: in quiet times, after a connection was lost, and at the end.
QUIET_S, DOUBT_S, END_S = 15.0, 1.0, 0.05
GONE_S = 10.0  # the server may be away this long
RELEASE_S = 30.0
CANCEL_AGAIN_S = 1.0
PENDING, RUNNING, ENDED, GONE = "pending", "running", "ended", "gone"
LOST = "comfyui_lost_prompt"


@dataclass(frozen=True)
class Task:
    """What to run: `sources` tells which field of the caller a value of the graph came from, by (node, input)."""

    prompt_id: str
    graph: Graph
    sources: Mapping[tuple[str, str], str]
    previews: bool
    silence_s: float


def prompt_id_of(request_id: str) -> str:
    """The id of a request, if it has the only form that ComfyUI takes; else a new one."""
    try:
        same = str(uuid.UUID(request_id)) == request_id
    except ValueError:
        same = False
    return request_id if same else str(uuid.uuid4())


async def run(server: Server, task: Task, ear: Ear) -> dict[str, Any]:
    """The outputs by node. Raises BadRequest for a value of the caller, ComfyFault for all else.

    Cancelled, it ends the prompt and returns when the server has let go of it."""
    await clear(server, task.prompt_id)
    connection = Connection(server, uuid.uuid4().hex)
    ended = False
    try:
        await connection.connect()
        await submit(server, task, connection.client_id)
        entry = await follow(server, task, connection, ear)
        ended = True
    except Refused as refused:
        raise refusal(refused.answer, task.sources) from refused
    finally:
        if not ended:
            with contextlib.suppress(EngineError):
                await release(server, task.prompt_id)
        await connection.close()
    return outcome(entry)


async def clear(server: Server, prompt_id: str) -> None:
    """An earlier attempt of the same job may have left its prompt behind, or what became of it."""
    if (await server.standing()).has(prompt_id):
        await release(server, prompt_id)
    await server.forget(prompt_id)


async def submit(server: Server, task: Task, client_id: str) -> None:
    """Raises Refused, also where the server has queued the good outputs of a bad prompt."""
    body: dict[str, Any] = {"prompt": task.graph, "client_id": client_id, "prompt_id": task.prompt_id}
    if task.previews:
        body["extra_data"] = {"preview_method": "auto"}
    answer = await server.submit(body)
    if answer.get("prompt_id") != task.prompt_id:
        # An old server gave it an id of its own.
        await server.cancel(str(answer.get("prompt_id")))
        raise ComfyFault("this ComfyUI is too old: it does not take the id of a prompt from its client")
    if answer.get("node_errors"):
        raise Refused(answer)


async def follow(server: Server, task: Task, connection: Connection, ear: Ear) -> dict[str, Any]:
    """The history's entry. Raises ComfyFault when the prompt is lost, or silent for too long."""
    quiet = min(QUIET_S, task.silence_s)
    patience, contact = quiet, time.monotonic()
    while True:
        try:
            message = await connection.message(patience)
            if message is not None and not ear.read(message):
                contact = time.monotonic()
                patience = min(quiet, patience * 2)
                continue
            place, entry = await look(server, task.prompt_id)
            contact = time.monotonic()
        except ComfyFault:
            if time.monotonic() - contact > GONE_S:
                raise
            patience = DOUBT_S
            continue
        if place == GONE:
            raise ComfyFault("ComfyUI does not know this prompt any more; was it restarted?", code=LOST)
        if entry is not None:
            return entry
        if place == PENDING:
            ear.heard = time.monotonic()
            ear.progress.tell()
        if time.monotonic() - ear.heard > task.silence_s:
            raise ComfyFault(f"ComfyUI has told nothing of this prompt for {task.silence_s:g} s.")
        patience = END_S if message is not None else DOUBT_S if connection.lost else patience


async def look(server: Server, prompt_id: str) -> tuple[str, dict[str, Any] | None]:
    """Where a prompt is, with the history's entry once it has one.

    In this order, because a prompt goes from the queue to the history in one step."""
    standing = await server.standing()
    if standing.has(prompt_id):
        return (PENDING if prompt_id in standing.pending else RUNNING), None
    entry = await server.history(prompt_id)
    return (GONE if entry is None else ENDED), entry


async def release(server: Server, prompt_id: str) -> None:
    """End the prompt and wait until it is gone. Asks again: a server that was just about to begin it forgets."""
    began = time.monotonic()
    asked, pause = 0.0, END_S / 2
    while time.monotonic() - began < RELEASE_S:
        if time.monotonic() - asked > CANCEL_AGAIN_S:
            await server.cancel(prompt_id)
            asked = time.monotonic()
        if not (await server.standing()).has(prompt_id):
            return
        await asyncio.sleep(pause)
        pause = min(pause * 2, CANCEL_AGAIN_S / 2)


def outcome(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a prompt that went well. Raises ComfyFault for another."""
    status = entry.get("status") or {}
    messages = dict(each for each in status.get("messages") or () if len(each) == 2)
    if "execution_interrupted" in messages:
        raise ComfyFault("Somebody interrupted this prompt in ComfyUI.", code="comfyui_interrupted")
    if status.get("status_str") == "error":
        raise ComfyFault(told(messages.get("execution_error") or {}), code="comfyui_execution_error")
    return dict(entry.get("outputs") or {})


def told(error: Mapping[str, Any]) -> str:
    where = f"node {error.get('node_id', '?')} ({error.get('node_type', 'unknown')})"
    what = f"{error.get('exception_type', 'error')}: {error.get('exception_message', '')}"
    return f"ComfyUI failed in {where}: {what[:MOST_SHOWN]}".strip()


def refusal(answer: Mapping[str, Any], sources: Mapping[tuple[str, str], str]) -> EngineError:
    """The error for a prompt that was not taken: the caller's, if it names an input whose value is his."""
    said = []
    for node, errors in (answer.get("node_errors") or {}).items():
        for error in errors.get("errors") or ():
            name = str((error.get("extra_info") or {}).get("input_name"))
            words = f"{error.get('message', 'invalid')}: {error.get('details', '')}"[:MOST_SHOWN]
            if (node, name) in sources:
                field = sources[(node, name)]
                return BadRequest(f"ComfyUI does not take '{field}': {words}", param=field)
            said.append(f"node {node} ({errors.get('class_type')}): {words}")
    error = answer.get("error") or {}
    if not said:
        said = [f"{error.get('message', 'invalid')}: {error.get('details', '')}"[:MOST_SHOWN]]
    return ComfyFault(
        f"ComfyUI does not take this workflow: {'; '.join(said)}", code="comfyui_invalid_workflow"
    )
