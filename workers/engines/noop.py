"""An engine without a model: it answers at once with a fixed text. For benchmarks and tests of the
scheduler.

Options: `load_s` (time a load takes), `delay_s` (before an answer), `tokens` (words of an answer, default
4), `token_interval_s` (between streamed words), `fail_load` (a message: loading fails with it).

Test hooks, read from the last message or the prompt: `!crash` kills this process with SIGKILL, `!error`
answers 500, `!hang` never answers, `!cling` neither, and goes on when its caller has left, `!oom` runs out of
memory, `!crowd` does so unless nothing runs beside it and it was sent to run alone, `!block` stops the whole
event loop (a hung engine: even /health is silent), `!break` ends a stream with an error event after its first
word, `!tokens=N`, `!delay=S` and `!interval=S` override the options for one request.

It must stay light: no weights, no torch; it runs under any Python that has uvicorn.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from workers.engines import encoding
from workers.engines.asgi import Call, EngineApp, Handler, Reply, Stream
from workers.engines.base import Engine, main
from workers.engines.failures import BadRequest, EngineFault
from workers.engines.fields import Fields
from workers.engines.launch import Launch, Options
from workers.engines.window import alone

HOOK = re.compile(r"!(crash|error|hang|cling|oom|crowd|block|break|tokens=\d+|delay=[\d.]+|interval=[\d.]+)")
IGNORED_BY_DESIGN = (
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "max_tokens",
    "max_completion_tokens",
    "dimensions",
)
VECTOR = (0.6, 0.8, 0.0, 0.0)


@dataclass(frozen=True)
class Plan:
    """What one request is to do."""

    tokens: int
    delay_s: float
    interval_s: float
    breaks: bool = False
    clings: bool = False


class NoopEngine(Engine):
    """Answers `w0 w1 w2 ...`."""

    def __init__(self, launch: Launch, app: EngineApp) -> None:
        super().__init__(launch, app)
        options = Options(launch.options)
        self.load_s = options.take("load_s", 0.0)
        self.delay_s = options.take("delay_s", 0.0)
        self.tokens = options.take("tokens", 4)
        self.interval_s = options.take("token_interval_s", 0.0)
        self.fail_load = options.take("fail_load", "")
        options.close()

    def load(self) -> None:
        time.sleep(self.load_s)
        if self.fail_load:
            raise RuntimeError(self.fail_load)

    def details(self) -> Mapping[str, Any]:
        return {"tokens": self.tokens}

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        return {
            ("POST", "/v1/chat/completions"): self.chat,
            ("POST", "/v1/completions"): self.complete,
            ("POST", "/v1/embeddings"): self.embed,
        }

    async def chat(self, call: Call) -> Reply | Stream:
        fields = Fields(call.json())
        messages = fields.listing("messages")
        if not messages:
            raise BadRequest("'messages' must hold at least one message.", param="messages")
        return await self._generate(fields, call, last_text(messages[-1]), chat=True)

    async def complete(self, call: Call) -> Reply | Stream:
        fields = Fields(call.json())
        return await self._generate(fields, call, str(fields.raw("prompt") or ""), chat=False)

    async def embed(self, call: Call) -> Reply:
        fields = Fields(call.json())
        self._common(fields)
        given = fields.raw("input")
        fields.choice("encoding_format", ("float",), "float")
        fields.close()
        if given is None:
            raise BadRequest("'input' is required.", param="input")
        inputs = given if isinstance(given, list) else [given]
        plan = self.plan(str(inputs[0]) if inputs else "")
        await pause(plan.delay_s)
        data = [{"object": "embedding", "index": i, "embedding": VECTOR} for i in range(len(inputs))]
        usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
        return Reply.json({"object": "list", "data": data, "model": self.app.served_name, "usage": usage})

    async def _generate(self, fields: Fields, call: Call, text: str, *, chat: bool) -> Reply | Stream:
        self._common(fields)
        streamed = fields.flag("stream")
        with_usage = Fields(fields.mapping("stream_options") or {}).flag("include_usage")
        limit = fields.integer("max_completion_tokens", 1) or fields.integer("max_tokens", 1)
        fields.close()
        plan = self.plan(text)
        if plan.clings:
            await cling()
        if "!crowd" in text and not (len(self.app.runs) == 1 and alone.get()):
            raise RuntimeError("CUDA error: out of memory")
        words = [f"w{i}" if i == 0 else f" w{i}" for i in range(min(plan.tokens, limit or plan.tokens))]
        reason = "length" if limit is not None and limit < plan.tokens else "stop"
        shape = Shape(self.app.served_name, chat, reason, usage_of(text, len(words)))
        if streamed:
            return Stream(self._stream(call, plan, words, shape, with_usage))
        await pause(plan.delay_s + plan.interval_s * len(words))
        return Reply.json(shape.whole("".join(words)))

    async def _stream(
        self, call: Call, plan: Plan, words: list[str], shape: Shape, with_usage: bool
    ) -> AsyncIterator[bytes]:
        await pause(plan.delay_s)
        if plan.interval_s == 0 and not plan.breaks:
            # One write for all events: this path measures the scheduler, not the socket.
            yield b"".join(shape.chunks(words, with_usage))
            return
        for index, chunk in enumerate(shape.chunks(words, with_usage)):
            yield chunk
            call.run.report(index, len(words))
            if plan.breaks and index == 1:
                raise EngineFault("The stream was asked to break.")
            await pause(plan.interval_s)

    def _common(self, fields: Fields) -> None:
        self.app.check_model(fields)
        for name in IGNORED_BY_DESIGN:
            fields.raw(name)

    def plan(self, text: str) -> Plan:
        """Apply the test hooks of one prompt."""
        plan = Plan(self.tokens, self.delay_s, self.interval_s)
        if "!" not in text:
            return plan
        hooks = dict.fromkeys(HOOK.findall(text))
        if "crash" in hooks:
            os.kill(os.getpid(), signal.SIGKILL)
        if "error" in hooks:
            raise EngineFault("The request asked for an error.")
        if "oom" in hooks:
            raise RuntimeError("CUDA error: out of memory")
        if "block" in hooks:
            time.sleep(86_400)
        values = dict(hook.split("=") for hook in hooks if "=" in hook)
        delay = float("inf") if "hang" in hooks else float(values.get("delay", plan.delay_s))
        interval = float(values.get("interval", plan.interval_s))
        tokens = int(values.get("tokens", plan.tokens))
        return Plan(tokens, delay, interval, "break" in hooks, "cling" in hooks)


@dataclass(frozen=True)
class Shape:
    """The OpenAI form of one answer."""

    model: str
    chat: bool
    reason: str
    usage: dict[str, int]

    def whole(self, text: str) -> dict[str, Any]:
        body = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **body, "logprobs": None, "finish_reason": self.reason}
        name = "chat.completion" if self.chat else "text_completion"
        return self.head(name) | {"choices": [choice], "usage": self.usage}

    def head(self, name: str) -> dict[str, Any]:
        return {"id": "noop", "object": name, "created": int(time.time()), "model": self.model}

    def chunks(self, words: list[str], with_usage: bool) -> list[bytes]:
        head = self.head("chat.completion.chunk" if self.chat else "text_completion")
        deltas: list[dict[str, Any]] = []
        if self.chat:
            deltas.append({"delta": {"role": "assistant", "content": ""}, "finish_reason": None})
            deltas += [{"delta": {"content": word}, "finish_reason": None} for word in words]
            deltas.append({"delta": {}, "finish_reason": self.reason})
        else:
            deltas += [{"text": word, "finish_reason": None} for word in words]
            deltas.append({"text": "", "finish_reason": self.reason})
        events = [encoding.event(head | {"choices": [{"index": 0, **delta}]}) for delta in deltas]
        if with_usage:
            events.append(encoding.event(head | {"choices": [], "usage": self.usage}))
        return [*events, encoding.DONE]


def last_text(message: Any) -> str:
    if not isinstance(message, dict):
        raise BadRequest("Each message must be an object.", param="messages", code="invalid_type")
    return str(message.get("content") or "")


def usage_of(text: str, words: int) -> dict[str, int]:
    prompt = len(text.split())
    return {"prompt_tokens": prompt, "completion_tokens": words, "total_tokens": prompt + words}


async def cling() -> None:
    """Wait for ever, cancelled or not."""
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


async def pause(seconds: float) -> None:
    """Wait; forever for infinity, not at all for zero."""
    if seconds == float("inf"):
        await asyncio.Event().wait()
    elif seconds > 0:
        await asyncio.sleep(seconds)


if __name__ == "__main__":
    main(NoopEngine, "workers.engines.noop")
