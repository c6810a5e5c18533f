"""The text engine: chat and text completions on transformers' continuous batching, made for hosts without a
GPU.

Options: `max_model_len` (context served; default the model's), `kv_gib` (memory for the cache, default 4),
`step_tokens` (prompt tokens per step, default 512), `threads` (torch threads, default all cores), `dtype`
(default float32 on a CPU, else bfloat16), `reasoning` (`{start, end}`, the tags around what the model thinks before
it answers; default none), `trust_remote_code` (default false).

Owns loading, the prompt and the flow of one request. How tokens are chosen and how answers look lies in
`textgen/`.
"""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from workers.engines.asgi import Call, EngineApp, Handler, Reply, Stream
from workers.engines.base import Engine, main
from workers.engines.failures import BadRequest
from workers.engines.fields import Fields
from workers.engines.launch import Launch, Options
from workers.engines.runs import Run
from workers.engines.textgen.answer import ChatForm, Choice, Form, TextForm, Usage
from workers.engines.textgen.batching import Batcher, Capacity
from workers.engines.textgen.demand import demanded
from workers.engines.textgen.guide import Guide, Vocabulary
from workers.engines.textgen.output import Piece, Speaker
from workers.engines.textgen.request import Ask, Defaults, read_chat, read_completion
from workers.engines.textgen.sampling import Sequence
from workers.engines.textgen.settings import end_tokens, model_sampling
from workers.engines.textgen.streaming import Pieces, allowance, streamed
from workers.engines.textgen.template import render
from workers.engines.textgen.thinking import ThinkingParser, read_tags
from workers.engines.textgen.token import Token
from workers.engines.textgen.tools import CallParser


class TextEngine(Engine):
    """One causal language model."""

    def __init__(self, launch: Launch, app: EngineApp) -> None:
        super().__init__(launch, app)
        options = Options(launch.options)
        self.wanted_context = options.take("max_model_len", 0)
        self.kv_gib = options.take("kv_gib", 4.0)
        self.step_tokens = options.take("step_tokens", 512)
        self.threads = options.take("threads", 0)
        self.dtype = options.take("dtype", "float32" if launch.device == "cpu" else "bfloat16")
        self.reasoning = options.take("reasoning", {})
        self.trusted = options.take("trust_remote_code", False)
        options.close()

    def load(self) -> None:
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        torch.set_num_threads(self.threads or len(os.sched_getaffinity(0)))
        where = {"trust_remote_code": self.trusted, "local_files_only": True}
        self.tokenizer: Any = AutoTokenizer.from_pretrained(self.launch.model, **where)
        self.tags = read_tags(self.reasoning or None, set(self.tokenizer.all_special_tokens))
        model: Any = AutoModelForCausalLM.from_pretrained(
            self.launch.model, dtype=getattr(torch, self.dtype), attn_implementation="sdpa", **where
        )
        model = model.to(self.launch.device).eval().requires_grad_(False)
        self.ends = end_tokens(model, self.tokenizer)
        self.defaults = Defaults(
            model_sampling(model.generation_config), model.config.get_text_config().vocab_size
        )
        self.context, capacity = self._capacity(model)
        self.vocabulary = Vocabulary(self.tokenizer, self.ends)
        self.batcher = Batcher(model, capacity, self.ends)
        self.batcher.start()

    def _capacity(self, model: Any) -> tuple[int, Capacity]:
        """The context served, and a cache that holds it for every slot as far as memory was given."""
        config = model.config.get_text_config()
        trained = int(getattr(config, "max_position_embeddings", 0) or self.tokenizer.model_max_length)
        if self.wanted_context > trained:
            raise ValueError(f"max_model_len {self.wanted_context} is over the model's context of {trained}")
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        per_token = 2 * config.num_hidden_layers * heads * head * getattr(torch, self.dtype).itemsize
        affordable = int(self.kv_gib * 2**30 / per_token)
        context = min(self.wanted_context or trained, affordable)
        return context, Capacity(
            self.launch.slots, min(context * self.launch.slots, affordable), self.step_tokens
        )

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        self.batcher.attach(asyncio.get_running_loop())
        self._watch = asyncio.create_task(self._watch_model())
        return {
            ("POST", "/v1/chat/completions"): self.chat,
            ("POST", "/v1/completions"): self.complete,
        }

    async def _watch_model(self) -> None:
        self.give_up(await asyncio.to_thread(self.batcher.outlive))

    def unload(self) -> None:
        self.batcher.stop()

    def details(self) -> Mapping[str, Any]:
        return {"context": self.context, **self.batcher.counts()}

    async def chat(self, call: Call) -> Reply | Stream:
        fields = Fields(call.json())
        self.app.check_model(fields)
        ask = await asyncio.to_thread(read_chat, fields, self.defaults)
        text = await asyncio.to_thread(self.render, ask)
        prompt: list[int] = await asyncio.to_thread(self.tokenizer.encode, text, add_special_tokens=False)
        thinks = self.tags is not None and text.rstrip().endswith(self.tags.start)
        form = ChatForm(self.app.served_name, self.tokenizer, ask.logprobs)
        return await self._run(call, ask, form, [prompt], [""], thinks)

    async def complete(self, call: Call) -> Reply | Stream:
        fields = Fields(call.json())
        self.app.check_model(fields)
        ask = await asyncio.to_thread(read_completion, fields, self.defaults)
        prompts = await asyncio.to_thread(lambda: [self._tokens(each) for each in ask.prompts])
        echoes = await asyncio.to_thread(
            lambda: [self._echo(each) if ask.echo else "" for each in ask.prompts]
        )
        form = TextForm(self.app.served_name, self.tokenizer, ask.logprobs)
        return await self._run(call, ask, form, prompts, echoes)

    def _tokens(self, prompt: str | tuple[int, ...]) -> list[int]:
        return self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)

    def _echo(self, prompt: str | tuple[int, ...]) -> str:
        return prompt if isinstance(prompt, str) else str(self.tokenizer.decode(list(prompt)))

    def render(self, ask: Ask) -> str:
        """The prompt, by the model's own chat template."""
        if not self.tokenizer.chat_template:
            raise BadRequest("This model has no chat template; use /v1/completions.", code="no_chat_template")
        return render(self.tokenizer, ask.messages, ask.template, tools=list(ask.tooling.tools) or None)

    async def _run(
        self,
        call: Call,
        ask: Ask,
        form: Form,
        prompts: list[list[int]],
        echoes: list[str],
        thinks: bool = False,
    ) -> Reply | Stream:
        param = "messages" if ask.chat else "prompt"
        limits = [allowance(self.context, len(prompt), ask.limit, param) for prompt in prompts]
        flow = Flow(self, call.run, ask, prompts, limits, echoes, thinks)
        if ask.stream:
            return Stream(streamed(flow.pieces(), form, flow.usage, tell_usage=ask.usage_event))
        async for _ in flow.pieces():
            pass
        return Reply(form.whole(flow.best(), flow.usage))

    def guide(self, ask: Ask, thinks: bool) -> Guide | None:
        """The form an answer must have, where the request demands one."""
        ways = demanded(ask, self.tags.end if self.tags and thinks else None)
        return None if ways is None else Guide(ways, self.vocabulary)


class Flow:
    """The answers of one request while they grow: n sequences per prompt, in one stream of pieces."""

    def __init__(
        self,
        engine: TextEngine,
        run: Run,
        ask: Ask,
        prompts: list[list[int]],
        limits: list[int],
        echoes: list[str],
        thinks: bool,
    ) -> None:
        self.engine = engine
        self.run = run
        self.ask = ask
        self.thinks = thinks
        self.most = sum(limits) * ask.candidates
        self.usage = Usage(prompt=sum(map(len, prompts)))
        self.choices: list[Choice] = []
        self._arrived: asyncio.Queue[tuple[int, Token | Exception]] = asyncio.Queue()
        self._sequences: list[Sequence] = []
        self._speakers: list[Speaker] = []
        self._echoes: list[str] = []
        first = ask.seed if ask.seed is not None else random.getrandbits(63)
        for prompt, limit, echo in zip(prompts, limits, echoes, strict=True):
            for number in range(ask.candidates):
                self._add(prompt, limit, echo, first + number)

    def _add(self, prompt: list[int], limit: int, echo: str, seed: int) -> None:
        ask, index = self.ask, len(self.choices)
        ends: frozenset[int] = frozenset() if ask.ignore_eos else self.engine.ends
        self._sequences.append(
            Sequence(
                id=uuid.uuid4().hex,
                prompt=prompt,
                sampling=ask.sampling,
                seed=seed,
                limit=limit,
                ends=ends,
                listen=lambda token: self._arrived.put_nowait((index, token)),
                guide=self.engine.guide(ask, self.thinks),
            )
        )
        self._speakers.append(Speaker(self.engine.tokenizer, ask.stops, ends, limit))
        self._echoes.append(echo)
        self.choices.append(self._choice(index))

    def _choice(self, index: int) -> Choice:
        ask, tags = self.ask, self.engine.tags
        calls = CallParser() if ask.tooling.mode != "none" else None
        # An answer that is held to a form from its first token on thinks nothing.
        thinks = tags is not None and ask.chat and (self.thinks or self._sequences[-1].guide is None)
        thinking = ThinkingParser(tags, self.thinks) if tags is not None and thinks else None
        return Choice(index, calls, thinking, ask.tooling.several)

    def best(self) -> list[Choice]:
        """The answers to give: of each prompt's candidates those whose tokens the model found likeliest."""
        count, many = self.ask.choices, self.ask.candidates
        if count == many:
            return self.choices
        each = [self.choices[start : start + many] for start in range(0, len(self.choices), many)]
        return [choice for group in each for choice in sorted(group, key=likelihood, reverse=True)[:count]]

    async def pieces(self) -> Pieces:
        """What comes until all answers are over; in any case the sequences end."""
        batcher = self.engine.batcher
        try:
            for sequence in self._sequences:
                batcher.add(sequence)
            left = len(self._sequences)
            while left:
                index, token = await self._arrived.get()
                choice = self.choices[index]
                if isinstance(token, Exception):
                    raise token
                if choice.over():
                    continue
                piece = self._piece(index, token)
                yield choice, choice.take(piece), piece
                if choice.over():
                    left -= 1
                    await batcher.release(self._sequences[index])
        finally:
            await asyncio.gather(*(batcher.release(sequence) for sequence in self._sequences))

    def _piece(self, index: int, token: Token) -> Piece:
        self.usage.completion += 1
        self.run.report(self.usage.completion, self.most)
        piece = self._speakers[index].push(token)
        echo, self._echoes[index] = self._echoes[index], ""
        piece.text = echo + piece.text
        return piece


def likelihood(choice: Choice) -> float:
    """Mean logprob of an answer's tokens."""
    found = [token.logprob or 0.0 for token in choice.tokens]
    return sum(found) / len(found) if found else float("-inf")


if __name__ == "__main__":
    main(TextEngine, "workers.engines.text")
