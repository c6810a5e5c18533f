"""The bar of leaving: clients of running streams hang up, and the engine must fall idle."""

import json
import socket
import statistics
import time
from collections.abc import Callable, Iterator
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

Running = Callable[[Stack], int]


def measure(wanted: set[str], scale: Scale) -> Iterator[Result]:
    model = "bench-chat-130m"
    source = str(model_folder(model))
    models = {model: {"engine": "text", "source": source, "type": "chat", "slots": 8}}
    with running(models) as stack:
        yield result(stack, scale, "cancel_text_s", model, text_running)


def result(stack: Stack, scale: Scale, name: str, model: str, count: Running) -> Result:
    trials = []
    for number in range(scale.cancels):
        trial = _trial(stack, model, count)
        say(f"  trial {number + 1}: {trial}")
        trials.append(trial)
    return Result(name, statistics.median(each["seconds"] for each in trials), {"trials": trials})


def _trial(stack: Stack, model: str, count: Running) -> dict[str, float]:
    """Seconds from hanging up until the engine says that nothing runs, if it is then still by its processor time."""
    messages = [{"role": "user", "content": "Go on and on."}]
    body = {"model": model, "messages": messages, "stream": True, "max_tokens": TOKENS, "ignore_eos": True}
    request = stack.through("/v1/chat/completions").request(body)
    engine = stack.roles()["engine"]
    idle = _cores(engine)
    connections = [_begun(stack.port, request) for _ in range(STREAMS)]
    busy = _cores(engine)
    if count(stack) != STREAMS:
        raise Broken(f"{count(stack)} streams run in the engine instead of {STREAMS}")
    left = time.monotonic()
    for connection in connections:
        connection.close()
    seconds = _until_none(stack, count, left)
    after = _cores(engine)
    while after > idle + BUSY and seconds < LIMIT_SECONDS:
        seconds = time.monotonic() - left
        after = _cores(engine)
    return {"seconds": seconds, "cores_before": idle, "cores_running": busy, "cores_after": after}


def _until_none(stack: Stack, count: Running, left: float) -> float:
    while count(stack) and time.monotonic() - left < LIMIT_SECONDS:
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


def _cores(pids: set[int]) -> float:
    """Processor time per second of these processes, over a short while."""
    before, began = cpu_seconds(pids), time.monotonic()
    time.sleep(STILL_SECONDS)
    return round((cpu_seconds(pids) - before) / (time.monotonic() - began), 3)


def text_running(stack: Stack) -> int:
    return len(json.loads(_ask(stack.direct("/runs")))["runs"])


def vllm_running(stack: Stack) -> int:
    """Running and waiting requests, as vLLM's own metrics tell."""
    total = 0.0
    for line in _ask(stack.direct("/metrics")).splitlines():
        if line.startswith((b"vllm:num_requests_running", b"vllm:num_requests_waiting{")):
            total += float(line.rsplit(b" ", 1)[1])
    return int(total)


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
