"""The vision engine: `/v1/chat/completions` with pictures, on models that transformers runs with `generate`.

Options: `max_model_len` (context served; default the model's), `max_pictures` (in one request, default 16),
`max_input_pixels` (of all pictures of a request, measured before they are decoded, default 40 million), `threads`
(torch threads, default all cores), `dtype` (default float32 on a CPU, else bfloat16), `trust_remote_code` (default
false).

One answer at a time. Pictures are decoded and prepared outside the model's thread, also one request at a time, so
that waiting requests do not fill the memory together. Owns the flow of one request; parts lie in `visiongen/`, and
what it shares with the text engine in `textgen/`.
"""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from transformers import AutoModelForImageTextToText
from transformers.utils import logging as transformers_logging

from workers.engines import device
from workers.engines.asgi import Call, EngineApp, Handler, Reply, Stream
from workers.engines.base import Engine, main
from workers.engines.failures import BadRequest
from workers.engines.fields import Fields
from workers.engines.launch import Launch, Options
from workers.engines.media import local_path
from workers.engines.pictures import read_picture
from workers.engines.runs import Run
from workers.engines.textgen.answer import ChatForm, Choice, Usage
from workers.engines.textgen.output import Speaker
from workers.engines.textgen.request import Defaults
from workers.engines.textgen.sampling import Sequence as Answer
from workers.engines.textgen.settings import end_tokens, model_sampling
from workers.engines.textgen.streaming import Pieces, allowance, streamed
from workers.engines.textgen.template import render
from workers.engines.textgen.token import Token
from workers.engines.visiongen.generation import Question, Seer
from workers.engines.visiongen.processor import load_processor
from workers.engines.visiongen.request import VisionAsk, read_vision
from workers.engines.window import Abandoned, Batch, Window


class VisionEngine(Engine):
    """One vision-language model."""

    def __init__(self, launch: Launch, app: EngineApp) -> None:
        super().__init__(launch, app)
        options = Options(launch.options)
        self.wanted_context = options.take("max_model_len", 0)
        self.max_pictures = options.take("max_pictures", 16)
        self.max_pixels = options.take("max_input_pixels", 40_000_000)
        self.threads = options.take("threads", 0)
        self.dtype = options.take("dtype", "float32" if launch.device == "cpu" else "bfloat16")
        self.trusted = options.take("trust_remote_code", False)
        options.close()

    def load(self) -> None:
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        torch.set_num_threads(self.threads or len(os.sched_getaffinity(0)))
        self.processor = load_processor(self.launch.model, self.trusted)
        self.tokenizer: Any = self.processor.tokenizer
        model: Any = AutoModelForImageTextToText.from_pretrained(
            self.launch.model,
            dtype=getattr(torch, self.dtype),
            local_files_only=True,
            trust_remote_code=self.trusted,
        )
        model = model.to(device.prepare(self.launch.device)).eval().requires_grad_(False)
        config = model.config.get_text_config()
        self.context = self._context(int(getattr(config, "max_position_embeddings", 0) or 0))
        self.ends = end_tokens(model, self.tokenizer)
        self.defaults = Defaults(model_sampling(model.generation_config), config.vocab_size)
        self.seer = Seer(model, self.tokenizer.pad_token_id or min(self.ends, default=0))
        self.studio = ThreadPoolExecutor(1, "pictures")
        self.window: Window[Question, int] = Window(self.run_batch, lambda questions: [0])
        self.window.start()

    def _context(self, trained: int) -> int:
        trained = trained or int(self.tokenizer.model_max_length)
        if self.wanted_context > trained:
            raise ValueError(f"max_model_len {self.wanted_context} is over the model's context of {trained}")
        return self.wanted_context or trained

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        return {("POST", "/v1/chat/completions"): self.chat}

    def unload(self) -> None:
        self.window.stop()

    def details(self) -> Mapping[str, Any]:
        return {
            "context": self.context,
            "max_pictures": self.max_pictures,
            "answered": self.window.items,
            "waiting": self.window.waiting(),
        }

    def run_batch(self, batch: Batch[Question, int]) -> Sequence[int]:
        """One answer on the model's thread."""

        def go_on() -> None:
            if batch.abandoned():
                raise Abandoned

        return [self.seer.answer(question, go_on) for question in batch.items]

    async def chat(self, call: Call) -> Reply | Stream:
        fields = Fields(call.json())
        self.app.check_model(fields)
        ask = read_vision(fields, self.defaults, self.max_pictures)
        inputs = await asyncio.get_running_loop().run_in_executor(self.studio, self.compose, ask)
        prompt = inputs["input_ids"][0].tolist()
        limit = allowance(self.context, len(prompt), ask.limit, "messages")
        form = ChatForm(self.app.served_name, self.tokenizer, ask.sampling.top_logprobs is not None)
        flow = Flow(self, call.run, ask, inputs, prompt, limit)
        call.run.report(0, limit, "waiting")
        if ask.stream:
            return Stream(streamed(flow.pieces(), form, flow.usage, tell_usage=ask.usage_event))
        async for _ in flow.pieces():
            pass
        return Reply(form.whole([flow.choice], flow.usage))

    def compose(self, ask: VisionAsk) -> Any:
        """The model's inputs: messages by its own chat template, pictures by its own processor."""
        room, pictures = self.max_pixels, []
        for link in ask.pictures:
            picture = read_picture(local_path(link.url, link.param, self.launch.media), link.param, room)
            room -= picture.width * picture.height
            pictures.append(picture)
        text = self.render(ask)
        begun = self.tokenizer.bos_token is not None and text.startswith(self.tokenizer.bos_token)
        try:
            return self.processor(
                images=pictures or None, text=[text], return_tensors="pt", add_special_tokens=not begun
            )
        except Exception as error:
            raise BadRequest(f"The model cannot take these messages: {error}", param="messages") from error

    def render(self, ask: VisionAsk) -> str:
        # Text that spells the mark of a picture would shift which picture stands where.
        mark = getattr(self.processor, "image_token", None)
        texts = [part["text"] for turn in ask.messages for part in turn["content"] if part["type"] == "text"]
        if mark and any(mark in text for text in texts):
            raise BadRequest(
                f"Texts must not hold '{mark}', the model's mark of a picture.", param="messages"
            )
        return render(self.processor, ask.messages, ask.template)


class Flow:
    """The answer of one request while it grows."""

    def __init__(
        self, engine: VisionEngine, run: Run, ask: VisionAsk, inputs: Any, prompt: list[int], limit: int
    ) -> None:
        self.engine = engine
        self.run = run
        self.usage = Usage(prompt=len(prompt))
        self.choice = Choice(0, None)
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[Token | BaseException | None] = asyncio.Queue()
        ends: frozenset[int] = frozenset() if ask.ignore_eos else engine.ends
        self._speaker = Speaker(engine.tokenizer, ask.stops, ends, limit)
        answer = Answer(
            id=uuid.uuid4().hex,
            prompt=prompt,
            sampling=ask.sampling,
            seed=ask.seed if ask.seed is not None else random.getrandbits(63),
            limit=limit,
            ends=ends,
            listen=self._hear,
        )
        self._question = Question(inputs, answer)

    def _hear(self, token: Token | Exception) -> None:
        """On the model's thread."""
        self._loop.call_soon_threadsafe(self._arrived.put_nowait, token)

    def _over(self, run: asyncio.Task[list[int]]) -> None:
        if not run.cancelled():
            self._arrived.put_nowait(run.exception())

    async def pieces(self) -> Pieces:
        """What comes until the answer is over; leaving ends the run."""
        answering = asyncio.create_task(self.engine.window.submit([self._question]))
        answering.add_done_callback(self._over)
        try:
            while self.choice.finish is None:
                token = await self._arrived.get()
                if isinstance(token, BaseException):
                    raise token
                if token is None:
                    raise RuntimeError("the model ended an answer without its last token")
                self.usage.completion += 1
                self.run.report(self.usage.completion, stage="running")
                piece = self._speaker.push(token)
                yield self.choice, self.choice.take(piece), piece
        finally:
            answering.cancel()


if __name__ == "__main__":
    main(VisionEngine, "workers.engines.vision")
