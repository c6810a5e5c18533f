"""The bar of leaving: clients of running streams hang up, and the engine must fall idle."""

import json
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.bars import Result
from benchmarks.http1 import Target
from benchmarks.plan import Scale
from benchmarks.processes import cpu_seconds
from benchmarks.stack import Broken, Stack, model_folder, running, say

BARS = ("cancel_text_s",)
STREAMS = 4
TOKENS = 1500
LIMIT_SECONDS = 20.0
STILL_SECONDS = 0.5
BUSY = 0.3
"""Cores above which an engine is still computing."""


@dataclass(frozen=True, slots=True)
class Witness:
    """How an engine shows that it works: `running` counts its requests, `is_still` tells that it computes nothing."""

    running: Callable[[Stack], int]
    is_still: Callable[[Stack], bool]


def measure(wanted: set[str], scale: Scale) -> Iterator[Result]:
    model = "bench-chat-130m"
    source = str(model_folder(model))
    models = {model: {"engine": "text", "source": source, "type": "chat", "slots": 8}}
    with running(models) as stack:
        yield result(stack, scale, "cancel_text_s", model, TEXT)


def result(stack: Stack, scale: Scale, name: str, model: str, witness: Witness) -> Result:
    trials = []
    for number in range(scale.cancels):
        seconds = _trial(stack, model, witness)
        say(f"  trial {number + 1}: {seconds:.3f} s")
        trials.append(seconds)
    return Result(name, statistics.median(trials), {"streams": STREAMS, "trials_s": trials})


def _trial(stack: Stack, model: str, witness: Witness) -> float:
    """Seconds from hanging up until the engine says that nothing runs; that counts only if it is then still."""
    messages = [{"role": "user", "content": "Go on and on."}]
    body = {"model": model, "messages": messages, "stream": True, "max_tokens": TOKENS, "ignore_eos": True}
    request = stack.through("/v1/chat/completions").request(body)
    connections = [_begun(stack.port, request) for _ in range(STREAMS)]
    if (seen := witness.running(stack)) != STREAMS:
        raise Broken(f"{seen} streams run in the engine instead of {STREAMS}")
    left = time.monotonic()
    for connection in connections:
        connection.close()
    seconds = _until_none(stack, witness, left)
    while not witness.is_still(stack) and seconds < LIMIT_SECONDS:
        seconds = time.monotonic() - left
    return seconds


def _until_none(stack: Stack, witness: Witness, left: float) -> float:
    while witness.running(stack) and time.monotonic() - left < LIMIT_SECONDS:
        time.sleep(0.02)
    return round(time.monotonic() - left, 3)


def _begun(port: int, request: bytes) -> socket.socket:
    """A connection on which a few events of the stream have arrived."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(request)
    seen = b""
    while seen.count(b"data: ") < 3:
        part = connection.recv(65536)
        if not part:
            raise Broken(f"the stream ended at once: {seen[-300:]!r}")
        seen += part
    return connection


def _uses_no_cpu(stack: Stack) -> bool:
    engine = stack.roles()["engine"]
    before, began = cpu_seconds(engine), time.monotonic()
    time.sleep(STILL_SECONDS)
    return cpu_seconds(engine) - before < BUSY * (time.monotonic() - began)


def _text_running(stack: Stack) -> int:
    return len(json.loads(_ask(stack.direct("/runs")))["runs"])


def _vllm_metric(stack: Stack, *names: str) -> float:
    starts = tuple(f"vllm:{name}{{".encode() for name in names)
    lines = [line for line in _ask(stack.direct("/metrics")).splitlines() if line.startswith(starts)]
    if not lines:
        raise Broken(f"vLLM shows no metric {names[0]}")
    return sum(float(line.rsplit(b" ", 1)[1]) for line in lines)


def _vllm_running(stack: Stack) -> int:
    return int(_vllm_metric(stack, "num_requests_running", "num_requests_waiting"))


def _vllm_makes_no_tokens(stack: Stack) -> bool:
    """Its processor time says nothing: a worker spins for a second while it waits for the next step."""
    before = _vllm_metric(stack, "generation_tokens_total")
    time.sleep(STILL_SECONDS)
    return _vllm_metric(stack, "generation_tokens_total") == before


TEXT = Witness(_text_running, _uses_no_cpu)
VLLM = Witness(_vllm_running, _vllm_makes_no_tokens)


def _ask(target: Target) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(target.address.removeprefix("unix:"))
        connection.sendall(f"GET {target.path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n".encode())
        seen = b""
        while part := connection.recv(65536):
            seen += part
    return _dechunked(seen)


def _dechunked(raw: bytes) -> bytes:
    head, _, body = raw.partition(b"\r\n\r\n")
    if b"chunked" not in head.lower():
        return body
    parts: list[Any] = []
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size or b"0", 16)
        parts.append(body[:length])
        body = body[length + 2 :] if length else b""
    return b"".join(parts)
