"""An engine in one file: a chat model that answers in capitals. See docs/engines.md."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping

from workers.adapters import OwnServer
from workers.engines import encoding
from workers.engines.asgi import Call, Handler, Reply, Stream
from workers.engines.base import Engine, main
from workers.engines.failures import BadRequest
from workers.engines.fields import Fields
from workers.engines.launch import Options

ENGINE = OwnServer("shout", frozenset({"chat/completions"}))  # registered as an entry point


class Shout(Engine):
    def load(self) -> None:
        options = Options(self.launch.options)
        self.pause_s = options.take("pause_s", 0.01)
        options.close()

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        return {("POST", "/v1/chat/completions"): self.chat}

    async def chat(self, call: Call) -> Reply | Stream:
        fields = Fields(call.json())
        self.app.check_model(fields)
        messages = fields.listing("messages")
        stream = fields.flag("stream")
        for harmless in ("temperature", "top_p", "max_tokens"):
            fields.number(harmless)
        fields.close()  # what nobody read is refused by name
        if not messages or not isinstance(messages[-1], dict):
            raise BadRequest("'messages' must hold a message.", param="messages")
        words = str(messages[-1].get("content")).upper().split()
        if stream:
            return Stream(self.pieces(words, call))
        text = " ".join([word async for word in self.words(words, call)])
        return Reply.json(self.answer("chat.completion", "message", {"role": "assistant", "content": text}))

    async def words(self, words: list[str], call: Call) -> AsyncIterator[str]:
        for number, word in enumerate(words):
            await asyncio.sleep(self.pause_s)  # where a real engine would compute
            call.run.report(number + 1, len(words))
            yield word

    async def pieces(self, words: list[str], call: Call) -> AsyncIterator[bytes]:
        async for word in self.words(words, call):
            yield encoding.event(self.answer("chat.completion.chunk", "delta", {"content": word + " "}))
        yield b"data: [DONE]\n\n"

    def answer(self, kind: str, part: str, value: dict[str, str]) -> dict[str, object]:
        choice = {"index": 0, part: value, "finish_reason": "stop" if part == "message" else None}
        return {
            "object": kind,
            "created": int(time.time()),
            "model": self.app.served_name,
            "choices": [choice],
        }


if __name__ == "__main__":
    main(Shout, "shout")
