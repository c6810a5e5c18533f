"""Continuous batching: many sequences run through the model together, joining and leaving at every step.

Drives transformers' batching manager and replaces its sampler by ours, through the list of logits
processors: for each step the batch tells which requests get a token, our processor chooses those tokens,
and hands the batch scores in which only the chosen token is possible. Tokens go to their listeners from
there, one wake-up of the event loop per step. Must not know HTTP or text.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessorList,
)
from transformers.generation.continuous_batching.continuous_api import OutputRouter
from transformers.generation.logits_process import LogitsProcessorList

from workers.engines.failures import EngineFault
from workers.engines.textgen.sampling import Sampling, Sequence, choose
from workers.engines.textgen.token import Token

RELEASE_S = 5.0
WARM_UP_S = 300.0
WATCH_S = 0.25
PAGE = 64


@dataclass(frozen=True)
class Capacity:
    """How much runs at once."""

    sequences: int
    kv_tokens: int
    step_tokens: int


class Sampler(ContinuousBatchingLogitsProcessorList):  # type: ignore[misc, unused-ignore]
    """Stands where the batching expects its logits processors, and decides every token."""

    def __init__(self, deliver: Callable[[list[tuple[Sequence, Token]]], None]) -> None:
        super().__init__(LogitsProcessorList())
        self.do_processing = True
        self._deliver = deliver
        self._batch: list[Sequence] = []

    def check_kwargs(self, kwargs: dict[str, Any]) -> None:
        if set(kwargs) != {"sequence"}:
            raise ValueError("a request must carry its sequence")

    def prepare_tensor_args(self, requests_in_batch: Items[Any], arg_storage: torch.Tensor) -> torch.Tensor:
        self._batch = [
            future.state.logit_processor_kwargs["sequence"]
            for future in requests_in_batch
            if future.has_new_token
        ]
        return arg_storage

    def __call__(self, input_ids: Any, scores: torch.Tensor, logits_processor_args: Any) -> torch.Tensor:
        count = len(self._batch)
        tokens = choose(self._batch, scores[:count]) if count else []
        decided = torch.full_like(scores, float("-inf"))
        for row, token in enumerate(tokens):
            decided[row, token.id] = 0.0
        self._deliver(list(zip(self._batch, tokens, strict=True)))
        return decided


class FailureRouter(OutputRouter):  # type: ignore[misc, unused-ignore]
    """Takes the batching's own reports. Tokens have gone out already, so only failures matter."""

    def __init__(self, failed: Callable[[str, str], None]) -> None:
        super().__init__()
        self._failed = failed

    def deliver(self, output: Any) -> None:
        if output.error is not None:
            self._failed(output.request_id, output.error)

    def deliver_batch(self, outputs: Items[Any]) -> None:
        for output in outputs:
            self.deliver(output)


class Batcher:
    """The running sequences of one model."""

    def __init__(self, model: Any, capacity: Capacity, ends: frozenset[int]) -> None:
        self._running: dict[str, Sequence] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self.steps = 0
        self.last_step = time.monotonic()
        # It reports what is missing for GPU memory even on a CPU; what fails for good is told by `outlive`.
        logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)
        self._manager: Any = model.init_continuous_batching(
            generation_config=GenerationConfig(do_sample=False, eos_token_id=sorted(ends) or -1),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=PAGE,
                num_blocks=max(4, -(-capacity.kv_tokens // PAGE) + capacity.sequences),
                max_batch_tokens=max(capacity.step_tokens, capacity.sequences),
                max_requests_per_batch=capacity.sequences,
                use_cuda_graph=False,
                use_async_batching=False,
                auto_switch_to_flash=False,
                per_request_processors=True,
            ),
        )
        self._manager.logit_processor = Sampler(self._on_step)
        self._manager.output_router = FailureRouter(self._on_failure)

    def start(self) -> None:
        """Run the loop, and one short sequence through it, so that the first caller finds it warm."""
        self._manager.start()
        first = Sequence("warm-up", [0, 0], Sampling(), 0, 2, frozenset(), lambda token: None)
        self.add(first)
        deadline = time.monotonic() + WARM_UP_S
        for pause in pauses():
            if first.finished():
                break
            if not self.alive() or time.monotonic() > deadline:
                raise RuntimeError(
                    f"the model does not run: {self._manager.background_thread_status.fatal_error}"
                )
            time.sleep(pause)
        self._running.clear()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say where listeners live. Before this nothing may be added."""
        self._loop = loop

    def stop(self) -> None:
        self._manager.stop(block=True, timeout=RELEASE_S, hard_stop=True)

    def outlive(self) -> str:
        """Wait (in a thread) until the model's loop has ended, and say why it did."""
        while self.alive():
            time.sleep(WATCH_S)
        return f"the model's loop ended: {self._why_not()}"

    def _why_not(self) -> str:
        return str(self._manager.background_thread_status.fatal_error or "no reason given")

    def alive(self) -> bool:
        return bool(self._manager.is_running())

    def add(self, sequence: Sequence) -> None:
        self._running[sequence.id] = sequence
        accepted = self._manager.add_request(
            sequence.prompt,
            request_id=sequence.id,
            max_new_tokens=sequence.limit,
            eos_token_id=sorted(sequence.ends) or -1,
            sequence=sequence,
        )
        if accepted is None:
            self._running.pop(sequence.id, None)
            raise EngineFault("The model no longer runs.")

    async def release(self, sequence: Sequence) -> None:
        """End a sequence, finished or not, and wait until the batch has let go of it."""
        if self._running.pop(sequence.id, None) is None or sequence.finished():
            return
        self._manager.cancel_request(sequence.id)
        deadline = time.monotonic() + RELEASE_S
        for pause in pauses():
            if not (self._holds(sequence.id) and self.alive() and time.monotonic() < deadline):
                return
            await asyncio.sleep(pause)

    def _holds(self, name: str) -> bool:
        processor = self._manager.batch_processor
        if processor is None:
            return False
        schedule = processor.scheduler
        return name in schedule.active_requests or name in schedule.waiting_requests

    def counts(self) -> dict[str, int]:
        return {"sequences": len(self._running), "steps": self.steps}

    def _on_step(self, chosen: list[tuple[Sequence, Token]]) -> None:
        """On the model's thread."""
        self.steps += 1
        self.last_step = time.monotonic()
        if self._loop is not None and chosen:
            self._loop.call_soon_threadsafe(self._tell, chosen)

    def _tell(self, chosen: list[tuple[Sequence, Token]]) -> None:
        for sequence, token in chosen:
            if sequence.id in self._running:
                sequence.listen(token)

    def _on_failure(self, name: str, error: str) -> None:
        """On the model's thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._fail, name, error)

    def _fail(self, name: str, error: str) -> None:
        sequence = self._running.pop(name, None)
        if sequence is not None:
            sequence.listen(EngineFault(f"The model failed: {error}"))


def pauses() -> Iterator[float]:
    """How long to wait between looks: a step takes milliseconds in a small model, far more in a large one."""
    pause = 0.002
    while True:
        yield pause
        pause = min(0.05, pause * 1.5)
