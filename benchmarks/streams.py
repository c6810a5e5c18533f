"""Bars of streaming: one vLLM, asked directly and through inferq in turn."""

import dataclasses
import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks import cancel
from benchmarks.bars import Result
from benchmarks.plan import Scale
from benchmarks.processes import Meter
from benchmarks.stack import Stack, load, model_folder, running, say

SMALL_BARS = ("stream_ratio_small", "ttft_added_ms")
BIG_BARS = ("stream_ratio_big", "cancel_vllm_s")
SMALL_STREAMS = 32
BIG_STREAMS = 8
PATH = "/v1/chat/completions"


def measure_small(wanted: set[str], scale: Scale) -> Iterator[Result]:
    with running(_vllm("demo-chat", SMALL_STREAMS)) as stack:
        _warm(stack, "demo-chat", SMALL_STREAMS)
        if "ttft_added_ms" in wanted:
            yield _added(stack, scale)
        if "stream_ratio_small" in wanted:
            yield _ratio(stack, scale, "stream_ratio_small", "demo-chat", SMALL_STREAMS, scale.tokens * 2)


def measure_big(wanted: set[str], scale: Scale) -> Iterator[Result]:
    with running(_vllm("bench-chat-130m", BIG_STREAMS)) as stack:
        _warm(stack, "bench-chat-130m", BIG_STREAMS)
        if "stream_ratio_big" in wanted:
            yield _ratio(stack, scale, "stream_ratio_big", "bench-chat-130m", BIG_STREAMS, scale.tokens // 2)
        if "cancel_vllm_s" in wanted:
            yield cancel.result(stack, scale, "cancel_vllm_s", "bench-chat-130m", cancel.VLLM)


def _vllm(model: str, slots: int) -> dict[str, Any]:
    options = {"max_model_len": 2048}
    source = str(model_folder(model))
    return {model: {"engine": "vllm", "source": source, "type": "chat", "slots": slots, "options": options}}


def body(model: str, tokens: int) -> dict[str, Any]:
    """A stream of exactly so many tokens."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": "Tell the long story number {n}."}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": tokens,
        "ignore_eos": True,
    }


def _targets(stack: Stack) -> dict[str, dict[str, Any]]:
    targets = {"direct": stack.direct(PATH), "through": stack.through(PATH)}
    return {side: dataclasses.asdict(target) for side, target in targets.items()}


def _warm(stack: Stack, model: str, streams: int) -> None:
    for target in _targets(stack).values():
        load({"kind": "streams", "target": target, "body": body(model, 32), "streams": streams})


def _ratio(stack: Stack, scale: Scale, name: str, model: str, streams: int, tokens: int) -> Result:
    plan = {"kind": "streams", "body": body(model, tokens), "streams": streams}
    rounds = []
    for number in range(scale.rounds):
        sides: dict[str, Any] = {}
        # Who goes first changes each time.
        order = ("direct", "through") if number % 2 else ("through", "direct")
        for side in order:
            meter = Meter(stack.roles)
            figures = load({**plan, "target": _targets(stack)[side]})
            figures["cpu_ms_per_token"] = meter.per(figures["tokens"], figures["client_cpu_s"])
            sides[side] = figures
        ratio = sides["through"]["tokens_per_s"] / sides["direct"]["tokens_per_s"]
        speeds = ", ".join(f"{side} {sides[side]['tokens_per_s']:.0f}" for side in ("direct", "through"))
        say(f"  round {number + 1}: {ratio:.3f} ({speeds} tokens/s)")
        rounds.append({"ratio": ratio, **sides})
    details = {"streams": streams, "tokens": tokens, "rounds": rounds}
    return Result(name, statistics.median(each["ratio"] for each in rounds), details)


def _added(stack: Stack, scale: Scale) -> Result:
    sides = _targets(stack)
    plan = {
        "kind": "pairs",
        "targets": [sides["direct"], sides["through"]],
        "bodies": [body("demo-chat", 16)] * 2,
        "pairs": scale.pairs,
    }
    figures = load(plan)
    return Result("ttft_added_ms", figures["added_ms"], figures)
