"""What ComfyUI's websocket tells of one prompt: progress, previews, its end. And the connection itself.

A message is a hint and no more: what a prompt came to stands in the server's history. Must not know requests of ours.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from workers.engines.comfy.server import ComfyFault, Server
from workers.engines.comfy.workflow import Graph

ENDS = ("execution_success", "execution_error", "execution_interrupted")
PREVIEW, PREVIEW_WITH_FACTS = 1, 4
HEAD = struct.Struct(">II")
WAITING, PAINTING = "waiting", "painting"

Report = Callable[[float, float | None, str], None]


@dataclass
class Progress:
    """Steps of all sampling nodes of a prompt, as one number. `planned` are the steps that the graph names."""

    report: Report
    planned: dict[str, float]
    seen: dict[str, tuple[float, float]] = field(default_factory=dict)
    stage: str = WAITING

    @classmethod
    def of(cls, graph: Graph, report: Report) -> Progress:
        return cls(report, planned_steps(graph))

    def begin(self) -> None:
        self.stage = PAINTING
        self.tell()

    def cached(self, nodes: Any) -> None:
        for node in nodes if isinstance(nodes, list) else ():
            self.planned.pop(str(node), None)

    def step(self, node: Any, value: Any, most: Any) -> None:
        """A node with one step does not sample: every node reports a beginning and an end."""
        if not all(isinstance(each, int | float) for each in (value, most)) or most <= 1:
            return
        self.stage = PAINTING
        self.seen[str(node)] = (float(value), float(most))
        self.tell()

    def totals(self) -> tuple[float, float]:
        """Steps done, and steps there are as far as is known."""
        steps = self.planned | {node: most for node, (_, most) in self.seen.items()}
        return sum(value for value, _ in self.seen.values()), sum(steps.values())

    def tell(self) -> None:
        done, total = self.totals()
        self.report(done, total or None, self.stage)


def planned_steps(graph: Graph) -> dict[str, float]:
    """Steps of the nodes that say so themselves; of others the first message tells."""
    found: dict[str, float] = {}
    for name, node in graph.items():
        steps = node["inputs"].get("steps")
        if type(steps) is int and "latent_image" in node["inputs"]:
            found[name] = steps
    return found


@dataclass
class Pace:
    """Which of the previews are shown: `most`, evenly over the steps."""

    most: int
    shown: int = 0

    def due(self, done: float, total: float) -> bool:
        if self.shown >= self.most or (total and done * (self.most + 1) < total * (self.shown + 1)):
            return False
        self.shown += 1
        return True


@dataclass
class Ear:
    """Reads the messages about one prompt."""

    prompt_id: str
    progress: Progress
    pace: Pace
    show: Callable[[int, bytes], None]
    heard: float = field(default_factory=time.monotonic)

    def read(self, message: aiohttp.WSMessage) -> bool:
        """Take in a message; whether it says that the prompt has ended."""
        if message.type is aiohttp.WSMsgType.BINARY:
            self.preview(message.data)
            return False
        try:
            value = json.loads(message.data)
            kind, data = value["type"], value["data"]
        except (ValueError, KeyError, TypeError):
            return False
        if not isinstance(data, dict) or data.get("prompt_id") != self.prompt_id:
            return False
        return self.about(kind, data)

    def about(self, kind: str, data: Mapping[str, Any]) -> bool:
        self.heard = time.monotonic()
        if kind == "execution_start":
            self.progress.begin()
        elif kind == "execution_cached":
            self.progress.cached(data.get("nodes"))
        elif kind == "progress":
            self.progress.step(data.get("node"), data.get("value"), data.get("max"))
        elif kind == "progress_state" and isinstance(data.get("nodes"), dict):
            for node, state in data["nodes"].items():
                if isinstance(state, dict):
                    self.progress.step(node, state.get("value"), state.get("max"))
        elif kind == "executing" and data.get("node") is not None:
            self.progress.begin()
        return kind in ENDS or (kind == "executing" and data.get("node") is None)

    def preview(self, raw: bytes) -> None:
        picture = preview_of(raw, self.prompt_id)
        if picture and self.pace.due(*self.progress.totals()):
            self.show(self.pace.shown - 1, picture)


def preview_of(raw: bytes, prompt_id: str) -> bytes | None:
    """The picture of a binary message; None for other kinds, other prompts, and what is broken.

    Both kinds begin with two big-endian words: the kind, and either the picture's format or the length of the facts.
    """
    if len(raw) < HEAD.size:
        return None
    kind, second = HEAD.unpack_from(raw)
    if kind == PREVIEW:
        return raw[HEAD.size :]
    if kind != PREVIEW_WITH_FACTS or len(raw) < HEAD.size + second:
        return None
    try:
        facts = json.loads(raw[HEAD.size : HEAD.size + second])
    except ValueError:
        return None
    if not isinstance(facts, dict) or facts.get("prompt_id", prompt_id) != prompt_id:
        return None
    return raw[HEAD.size + second :]


class Connection:
    """The websocket of one client id, connected again when it drops."""

    def __init__(self, server: Server, client_id: str) -> None:
        self.server, self.client_id = server, client_id
        self.socket: aiohttp.ClientWebSocketResponse | None = None

    async def connect(self) -> None:
        self.socket = await self.server.listen(self.client_id)

    async def message(self, patience_s: float) -> aiohttp.WSMessage | None:
        """The next message; None when none came in time, and while there is no connection."""
        if self.socket is None:
            try:
                await self.connect()
            except ComfyFault:
                await asyncio.sleep(patience_s)
            return None
        try:
            message = await self.socket.receive(patience_s)
        except TimeoutError:
            return None
        if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            return message
        await self.close()
        return None

    @property
    def lost(self) -> bool:
        return self.socket is None

    async def close(self) -> None:
        if self.socket is not None:
            socket, self.socket = self.socket, None
            await socket.close()
