"""The engine of the suite: it does what prompts say, like `noop`, and writes down each run that begins and ends.

It is copied into a folder of its own as `inferq_chaos_sink` and found there by its entry point, as an engine of a
third party is. A prompt holds `#MARKER` and the hooks of the noop engine. An answer is words `RUN/0 RUN/1 ...`, so
whoever holds an answer knows which run made it. The file that `CHAOS_SINK` names outlives this process.
"""

import json
import os
import re
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from workers.adapters import OwnServer
from workers.engines.asgi import Call, Reply, Stream
from workers.engines.base import main
from workers.engines.fields import Fields
from workers.engines.noop import NoopEngine, Plan, Shape, pause, usage_of

ENGINE = OwnServer("inferq_chaos_sink", frozenset({"chat/completions"}))
MARKER = re.compile(r"#([\w.-]+)")


class Book:
    """Runs as they begin and end."""

    def __init__(self) -> None:
        self._file = os.open(os.environ["CHAOS_SINK"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, event: str, **facts: Any) -> None:
        line = {"at": time.time(), "actor": "sink", "event": event, "pid": os.getpid(), **facts}
        os.write(self._file, json.dumps(line).encode() + b"\n")


class SinkEngine(NoopEngine):
    def load(self) -> None:
        super().load()
        self.book = Book()

    async def _generate(self, fields: Fields, call: Call, text: str, *, chat: bool) -> Reply | Stream:
        self._common(fields)
        streamed = fields.flag("stream")
        fields.close()
        found = MARKER.search(text)
        run = secrets.token_hex(4)
        job = call.headers.get("x-request-id")
        self.book.note("begin", run=run, job=job, marker=found and found[1], model=self.app.served_name)
        try:
            plan = self.plan(text)
        except Exception:
            self.book.note("end", run=run, how="failed")
            raise
        words = [f"{' ' if i else ''}{run}/{i}" for i in range(plan.tokens)]
        shape = Shape(self.app.served_name, chat, "stop", usage_of(text, len(words)))
        if streamed:
            return Stream(self._told(run, call, plan, words, shape))
        how = "cancelled"
        try:
            await pause(plan.delay_s + plan.interval_s * len(words))
            how = "done"
        finally:
            self.book.note("end", run=run, how=how)
        return Reply.json(shape.whole("".join(words)))

    async def _told(
        self, run: str, call: Call, plan: Plan, words: list[str], shape: Shape
    ) -> AsyncIterator[bytes]:
        how = "cancelled"
        try:
            await pause(plan.delay_s)
            for index, chunk in enumerate(shape.chunks(words, with_usage=False)):
                yield chunk
                call.run.report(index, len(words))
                await pause(plan.interval_s)
            how = "done"
        finally:
            self.book.note("end", run=run, how=how)


if __name__ == "__main__":
    main(SinkEngine, "inferq_chaos_sink")
