"""A whole API on a real socket with its own Redis and SQLite, its callers, and a replica that answers as told."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from api.app import create_app
from api.context import Context
from api.server import listen, opened, server_for, url_of
from inferq.config import Settings
from inferq.job import Failure
from queues import frames
from queues.attempts import Attempt, Attempts, Finish, Outcome, error_frame
from queues.connection import connect
from queues.frames import FrameKind
from queues.presence import Presence, ReplicaInfo
from queues.recorder import Recorder
from queues.reply_writer import ReplyWriter
from storage.keys import Role

MODELS: dict[str, Any] = {
    "demo-chat": {
        "engine": "text",
        "source": "models/demo-chat",
        "type": "chat",
        "aliases": ["gpt-4o-mini"],
        "context": 1024,
        "description": "A <small> model.",
    },
    "demo-embed": {"engine": "embed", "source": "models/demo-embed", "type": "embedding"},
    "demo-draw": {"engine": "draw", "source": "models/demo-draw", "type": "image"},
}
CHAT = {"model": "demo-chat", "messages": [{"role": "user", "content": "Say hello."}]}
ANSWER = (
    b'{"id":"c1","object":"chat.completion","created":1,"model":"demo-chat","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"Hello!"},"finish_reason":"stop"}]}'
)
CHUNKS = [
    b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"demo-chat","choices":'
    b'[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n' % word
    for word in (b"Hel", b"lo!")
]
DONE = b"data: [DONE]\n\n"
BROKEN = Failure(code="engine_error", message="the engine failed", status=500)
DEADLINE = 10.0


def settings_for(home: Path, redis_url: str, **sections: Any) -> Settings:
    tree = {"queue": {"redis_url": redis_url}, "models": MODELS, "home": home, "request_defaults": {}}
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section} if isinstance(section, dict) else section
    return Settings.model_validate(tree)


T = TypeVar("T")


async def until(question: Callable[[], Awaitable[T]]) -> T:
    """The first true answer; fails when there is none in time."""
    async with asyncio.timeout(DEADLINE):
        while not (answer := await question()):
            await asyncio.sleep(0.01)
        return answer


@dataclass
class Stack:
    url: str
    context: Context
    http: httpx2.AsyncClient
    keys: dict[str, str] = field(default_factory=dict)

    def headers(self, who: str | None = "user", **more: str) -> dict[str, str]:
        bearer = {"Authorization": f"Bearer {self.keys[who]}"} if who else {}
        return {**bearer, **{name.replace("_", "-"): value for name, value in more.items()}}

    async def get(self, path: str, who: str | None = "user", **headers: str) -> httpx2.Response:
        return await self.http.get(path, headers=self.headers(who, **headers))

    async def post(
        self, path: str, body: Any = None, who: str | None = "user", **headers: str
    ) -> httpx2.Response:
        return await self.http.post(path, json=body, headers=self.headers(who, **headers))

    async def submit(self, who: str = "user", **changes: Any) -> str:
        """The id of a durable job that waits."""
        response = await self.post("/v1/jobs", {**CHAT, **changes}, who)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])


class Replica:
    """Claims jobs of one model and answers them as a real one does, at the moment the test says."""

    def __init__(self, settings: Settings, model: str = "demo-chat"):
        self._redis = connect(settings)
        self.attempts = Attempts(self._redis, settings, model, "replica@cpu")
        self.writer = ReplyWriter(self._redis, self.attempts, settings.queue.prefix)
        self._presence = Presence(self._redis, settings.queue.prefix)
        self._model = model

    async def show(self) -> None:
        """Report as ready: what it answers may be cached."""
        info = {"name": f"{self._model}@cpu", "model": self._model, "device": "cpu:0", "node": "here"}
        await self._presence.show_replica(ReplicaInfo(**info, pid=1, state="ready", since=1.0, slots=1))

    async def close(self) -> None:
        await self._redis.aclose()

    async def claim(self) -> Attempt:
        """The next job, as soon as there is one."""
        return await until(self.attempts.claim)

    async def result(self, attempt: Attempt, body: bytes = ANSWER) -> None:
        frame = frames.pack(attempt.id, FrameKind.RESULT, attempt.token, 0, body)
        kept = body if attempt.job.spec.kept else None
        await self._finish(attempt, Finish(outcome=Outcome.SUCCEEDED, seconds=0.1, frame=frame, result=kept))

    async def fail(self, attempt: Attempt, failure: Failure = BROKEN) -> None:
        frame = error_frame(attempt.id, attempt.token, failure)
        await self._finish(attempt, Finish(outcome=Outcome.FAILED, frame=frame, failure=failure))

    async def finish_with_artifact(
        self, attempt: Attempt, sha256: str, media_type: str = "image/png"
    ) -> None:
        await self._finish(
            attempt, Finish(outcome=Outcome.SUCCEEDED, artifact=sha256, result_type=media_type)
        )

    async def chunks(self, attempt: Attempt, chunks: list[bytes]) -> None:
        await self.writer.first(attempt, chunks[0])
        for seq, chunk in enumerate(chunks[1:], 1):
            self.writer.chunk(attempt, seq, chunk)
        await self.writer.drain(attempt)

    async def end(self, attempt: Attempt, count: int) -> None:
        frame = frames.pack(attempt.id, FrameKind.END, attempt.token, count, b"")
        await self._finish(attempt, Finish(outcome=Outcome.SUCCEEDED, seconds=0.1, frame=frame))

    async def stream(self, attempt: Attempt, chunks: list[bytes]) -> None:
        await self.chunks(attempt, chunks)
        await self.end(attempt, len(chunks))

    async def answer_one(self, body: bytes = ANSWER) -> Attempt:
        attempt = await self.claim()
        await self.result(attempt, body)
        return attempt

    async def _finish(self, attempt: Attempt, finish: Finish) -> None:
        state, _ = await self.attempts.finish(attempt, finish, claim_next=False)
        assert state == finish.outcome


@contextlib.asynccontextmanager
async def serving(settings: Settings, template: Path) -> AsyncIterator[Stack]:
    """An API that serves, with one key per role and a second tenant's."""
    settings.home.mkdir(parents=True, exist_ok=True)
    shutil.copy(template, settings.home / "inferq.db")
    async with opened(settings) as context:
        sock = listen("127.0.0.1", 0)
        server = server_for(create_app(context), settings)
        task = asyncio.create_task(server.serve(sockets=[sock]))
        url = url_of(sock)
        try:
            async with httpx2.AsyncClient(base_url=url, timeout=DEADLINE, trust_env=False) as http:
                stack = Stack(url, context, http)
                for name, role in (
                    ("admin", Role.ADMIN),
                    ("user", Role.USER),
                    ("other", Role.USER),
                    ("readonly", Role.READONLY),
                ):
                    _, stack.keys[name] = await context.storage.keys.create(name, role)
                yield stack
        finally:
            context.stopping.set()
            server.should_exit = True
            await task
            sock.close()


async def recorded(settings: Settings, context: Context) -> None:
    """Let the recorder write what has finished to the ledger, as the scheduler process does."""
    client = connect(settings)
    try:
        recorder = Recorder(client, context.storage.ledger, settings)
        while await recorder.run_once(block_ms=1):
            pass
    finally:
        await client.aclose()
