"""The load program: `python -m benchmarks.load` reads one plan as JSON on stdin and writes its figures to stdout.

It runs in a process of its own, and is the same for both sides of every comparison. A plan has a `kind` (a key of
`KINDS`), targets and bodies; in a body the text ``{n}`` is replaced by the number of the request.
"""

import asyncio
import itertools
import json
import random
import re
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import uvloop

from benchmarks.http1 import Answer, Connection, Target

Plan = dict[str, Any]
Figures = dict[str, Any]

_TOKENS = re.compile(rb'"completion_tokens": ?(\d+)')


def requests(target: Target, body: Any) -> Iterator[bytes]:
    """Requests without end; those of one plan differ only in their number."""
    text = json.dumps(body)
    if "{n}" not in text:
        return itertools.repeat(target.request(body))
    return (target.request(json.loads(text.replace("{n}", str(n)))) for n in itertools.count())


def percentiles(values: Sequence[float]) -> Figures:
    """p50, p95, p99 and the largest."""
    if not values:
        return {}
    ordered = sorted(values)
    marks = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
    figures = {name: ordered[min(len(ordered) - 1, int(len(ordered) * mark))] for name, mark in marks.items()}
    return {name: round(value, 3) for name, value in {**figures, "max": ordered[-1]}.items()}


def summary(answers: Sequence[Answer], seconds: float) -> Figures:
    faults = [fault for answer in answers if (fault := answer.fault)]
    return {
        "count": len(answers),
        "seconds": seconds,
        "ms": percentiles([(a.ended - a.sent) * 1000 for a in answers]),
        "first_ms": percentiles([(a.first - a.sent) * 1000 for a in answers]),
        "errors": len(faults),
        "error": faults[0] if faults else None,
    }


async def streams(plan: Plan) -> Figures:
    """`streams` requests at the same instant; how many tokens came, and how long it took to the last of them."""
    target, count = Target(**plan["target"]), plan["streams"]
    wanted = list(itertools.islice(requests(target, plan["body"]), count))
    connections = [await Connection.open(target.address) for _ in range(count)]
    began = time.perf_counter()
    answers = await asyncio.gather(
        *(connection.ask(request) for connection, request in zip(connections, wanted, strict=True))
    )
    seconds = max(answer.ended for answer in answers) - began
    for connection in connections:
        connection.close()
    tokens = sum(int(found[-1]) for answer in answers if (found := _TOKENS.findall(answer.raw)))
    events = sum(answer.raw.count(b"data: ") for answer in answers)
    return {**summary(answers, seconds), "tokens": tokens, "events": events, "tokens_per_s": tokens / seconds}


async def closed(plan: Plan) -> Figures:
    """`clients` ask again as soon as they are answered, for `seconds`."""
    target = Target(**plan["target"])
    source = requests(target, plan["body"])
    connections = [await Connection.open(target.address) for _ in range(plan["clients"])]
    answers: list[Answer] = []
    began = time.perf_counter()
    deadline = began + plan["seconds"]

    async def client(connection: Connection) -> None:
        while time.perf_counter() < deadline:
            answers.append(await connection.ask(next(source)))
        connection.close()

    await asyncio.gather(*map(client, connections))
    return summary(answers, time.perf_counter() - began)


async def arrivals(plan: Plan) -> Figures:
    """Requests come at random (Poisson) at `rate` per second for `seconds`, whether answered or not."""
    target, random_times = Target(**plan["target"]), random.Random(plan.get("seed", 1))
    source = requests(target, plan["body"])
    idle = [await Connection.open(target.address) for _ in range(64)]
    answers: list[Answer] = []
    running: set[asyncio.Task[None]] = set()

    async def one(request: bytes) -> None:
        connection = idle.pop() if idle else await Connection.open(target.address)
        answers.append(await connection.ask(request))
        idle.append(connection)

    began = due = time.perf_counter()
    while (due := due + random_times.expovariate(plan["rate"])) < began + plan["seconds"]:
        await asyncio.sleep(max(due - time.perf_counter(), 0.0))
        task = asyncio.create_task(one(next(source)))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    for connection in idle:
        connection.close()
    return summary(answers, time.perf_counter() - began)


async def pairs(plan: Plan) -> Figures:
    """One request at a time to each of two targets in turn: what the second adds to the time to the first byte."""
    sides = [Target(**target) for target in plan["targets"]]
    sources = [requests(side, body) for side, body in zip(sides, plan["bodies"], strict=True)]
    connections = [await Connection.open(side.address) for side in sides]
    answers: list[list[Answer]] = [[], []]
    for number in range(plan["pairs"]):
        # Who is asked first changes each time, so that neither side has the warmer engine.
        for side in (0, 1) if number % 2 else (1, 0):
            answers[side].append(await connections[side].ask(next(sources[side])))
    for connection in connections:
        connection.close()
    firsts = [[(a.first - a.sent) * 1000 for a in side] for side in answers]
    added = [through - direct for direct, through in zip(*firsts, strict=True)]
    whole = summary([*answers[0], *answers[1]], 0.0)
    return {
        "added_ms": statistics.median(added),
        "added": percentiles(added),
        "direct_first_ms": percentiles(firsts[0]),
        "through_first_ms": percentiles(firsts[1]),
        "errors": whole["errors"],
        "error": whole["error"],
    }


async def shared(plan: Plan) -> Figures:
    """`clients` share a list of bodies until it is empty; with `keep` the figures hold the answers, in their order."""
    target = Target(**plan["target"])
    wanted = iter(list(enumerate(target.request(body) for body in plan["bodies"])))
    connections = [await Connection.open(target.address) for _ in range(plan["clients"])]
    answers: dict[int, Answer] = {}
    began = time.perf_counter()

    async def client(connection: Connection) -> None:
        for number, request in wanted:
            answers[number] = await connection.ask(request)
        connection.close()

    await asyncio.gather(*map(client, connections))
    figures = summary(list(answers.values()), time.perf_counter() - began)
    if plan.get("keep"):
        bodies = [answers[number].raw.partition(b"\r\n\r\n")[2] for number in sorted(answers)]
        figures["answers"] = [body.decode() for body in bodies]
    return figures


KINDS: dict[str, Callable[[Plan], Awaitable[Figures]]] = {
    "streams": streams,
    "closed": closed,
    "arrivals": arrivals,
    "pairs": pairs,
    "shared": shared,
}


async def _run(plan: Plan) -> Figures:
    figures = await KINDS[plan["kind"]](plan)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {**figures, "client_cpu_s": round(usage.ru_utime + usage.ru_stime, 3)}


def main() -> int:
    figures = uvloop.run(_run(json.load(sys.stdin)))
    json.dump(figures, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
