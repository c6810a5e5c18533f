"""The OpenAI form of answers: whole bodies and stream events, for chat and for text completions.

Must not know where the pieces come from.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from workers.engines import encoding
from workers.engines.textgen.output import Piece
from workers.engines.textgen.thinking import ThinkingParser, Thought
from workers.engines.textgen.token import Token
from workers.engines.textgen.tools import CallDelta, CallParser

Delta = str | Thought | CallDelta


@dataclass
class Usage:
    """Tokens that one request took."""

    prompt: int = 0
    completion: int = 0

    def view(self) -> dict[str, int]:
        total = self.prompt + self.completion
        return {"prompt_tokens": self.prompt, "completion_tokens": self.completion, "total_tokens": total}


@dataclass
class Choice:
    """One answer of a request, as it grows."""

    index: int
    parser: CallParser | None
    thinking: ThinkingParser | None = None
    several: bool = True
    """Whether the answer goes on after a call."""
    text: str = ""
    thought: str = ""
    tokens: list[Token] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    finish: str | None = None
    opened: bool = False

    def over(self) -> bool:
        return self.finish is not None

    def take(self, piece: Piece) -> list[Delta]:
        """Add a piece; gives what is new, as thoughts, content and call deltas."""
        deltas = self._split(piece.text, over=piece.finish is not None)
        for delta in deltas:
            self._keep(delta)
        self.tokens += piece.tokens
        if piece.finish:
            self.finish = "tool_calls" if self.calls and piece.finish == "stop" else piece.finish
        elif self.parser is not None and self.parser.closed and not self.several:
            self.finish = "tool_calls"
        return deltas

    def _split(self, text: str, over: bool) -> list[Delta]:
        pieces: list[str | Thought] = [text]
        if self.thinking is not None:
            pieces = self.thinking.push(text) + (self.thinking.flush() if over else [])
        deltas: list[Delta] = []
        for piece in pieces:
            if isinstance(piece, Thought):
                deltas.append(piece)
            elif self.parser is not None:
                deltas += self.parser.push(piece)
            elif piece:
                deltas.append(piece)
        if over and self.parser is not None:
            deltas += self.parser.flush()
        return deltas

    def _keep(self, delta: Delta) -> None:
        if isinstance(delta, str):
            self.text += delta
        elif isinstance(delta, Thought):
            self.thought += delta.text
        elif delta.name is not None:
            function = {"name": delta.name, "arguments": delta.arguments}
            self.calls.append({"id": delta.id, "type": "function", "function": function})
        else:
            self.calls[delta.index]["function"]["arguments"] += delta.arguments


class Form:
    """What the two endpoints share: the head of every body, and token texts."""

    prefix: str
    whole_name: str
    chunk_name: str

    def __init__(self, model: str, tokenizer: Any, logprobs: bool) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.logprobs = logprobs
        self.id = self.prefix + uuid.uuid4().hex
        self.created = int(time.time())

    def head(self, name: str) -> dict[str, Any]:
        return {"id": self.id, "object": name, "created": self.created, "model": self.model}

    def whole(self, choices: Sequence[Choice], usage: Usage) -> bytes:
        bodies = [self.choice(choice) | {"index": place} for place, choice in enumerate(choices)]
        return encoding.dumps(self.head(self.whole_name) | {"choices": bodies, "usage": usage.view()})

    def chunk(self, choices: list[dict[str, Any]], usage: Usage | None = None) -> bytes:
        extra = {"usage": usage.view()} if usage is not None else {}
        return encoding.event(self.head(self.chunk_name) | {"choices": choices} | extra)

    def events(self, choice: Choice, deltas: list[Delta], piece: Piece) -> bytes:
        """The stream events for what is new in one answer."""
        raise NotImplementedError

    def choice(self, choice: Choice) -> dict[str, Any]:
        raise NotImplementedError

    def token_text(self, token: int) -> str:
        text: str = self.tokenizer.decode([token])
        return text


class ChatForm(Form):
    """`/v1/chat/completions`."""

    prefix, whole_name, chunk_name = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def choice(self, choice: Choice) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
        if choice.thought:
            message |= thought(choice.thought)
        if choice.calls:
            message |= {"content": choice.text or None, "tool_calls": choice.calls}
        logprobs = self.list_logprobs(choice.tokens) if self.logprobs else None
        return {
            "index": choice.index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": choice.finish,
        }

    def events(self, choice: Choice, deltas: list[Delta], piece: Piece) -> bytes:
        bodies: list[dict[str, Any]] = []
        if not choice.opened:
            choice.opened = True
            bodies.append({"delta": {"role": "assistant", "content": ""}})
        bodies += [{"delta": self.delta(delta)} for delta in deltas]
        if self.logprobs and piece.tokens:
            if not deltas:
                bodies.append({"delta": {}})
            bodies[-1]["logprobs"] = self.list_logprobs(piece.tokens)
        events = [self.chunk([{"index": choice.index, **body, "finish_reason": None}]) for body in bodies]
        if choice.finish:
            events.append(self.chunk([{"index": choice.index, "delta": {}, "finish_reason": choice.finish}]))
        return b"".join(events)

    def delta(self, delta: Delta) -> dict[str, Any]:
        if isinstance(delta, str):
            return {"content": delta}
        if isinstance(delta, Thought):
            return thought(delta.text)
        return {"tool_calls": [self.call_delta(delta)]}

    def call_delta(self, delta: CallDelta) -> dict[str, Any]:
        if delta.name is None:
            return {"index": delta.index, "function": {"arguments": delta.arguments}}
        function = {"name": delta.name, "arguments": delta.arguments}
        return {"index": delta.index, "id": delta.id, "type": "function", "function": function}

    def list_logprobs(self, tokens: Sequence[Token]) -> dict[str, Any]:
        content = []
        for token in tokens:
            top = [self.one_logprob(number, value) for number, value in token.top]
            content.append(self.one_logprob(token.id, token.logprob or 0.0) | {"top_logprobs": top})
        return {"content": content, "refusal": None}

    def one_logprob(self, token: int, value: float) -> dict[str, Any]:
        text = self.token_text(token)
        return {"token": text, "logprob": finite(value), "bytes": list(text.encode())}


class TextForm(Form):
    """`/v1/completions`."""

    prefix, whole_name, chunk_name = "cmpl-", "text_completion", "text_completion"

    def choice(self, choice: Choice) -> dict[str, Any]:
        logprobs = self.columns(choice.tokens) if self.logprobs else None
        return {
            "index": choice.index,
            "text": choice.text,
            "logprobs": logprobs,
            "finish_reason": choice.finish,
        }

    def events(self, choice: Choice, deltas: list[Delta], piece: Piece) -> bytes:
        text = "".join(delta for delta in deltas if isinstance(delta, str))
        if not text and not choice.finish:
            return b""
        logprobs = self.columns(piece.tokens) if self.logprobs and piece.tokens else None
        body = {"index": choice.index, "text": text, "logprobs": logprobs, "finish_reason": choice.finish}
        return self.chunk([body])

    def columns(self, tokens: Sequence[Token]) -> dict[str, Any]:
        texts = [self.token_text(token.id) for token in tokens]
        offsets, place = [], 0
        for text in texts:
            offsets.append(place)
            place += len(text)
        tops = [{self.token_text(number): finite(value) for number, value in token.top} for token in tokens]
        return {
            "tokens": texts,
            "token_logprobs": [finite(token.logprob or 0.0) for token in tokens],
            "top_logprobs": tops,
            "text_offset": offsets,
        }


def thought(text: str) -> dict[str, str]:
    """Clients know one of two names: DeepSeek's, and the one that vLLM changed to."""
    return {"reasoning_content": text, "reasoning": text}


def finite(value: float) -> float:
    """JSON knows no infinity; OpenAI writes -9999 for an impossible token."""
    return max(value, -9999.0)
