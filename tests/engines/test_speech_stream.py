"""The speech engine while it speaks: early sound, turns, progress, and callers who leave."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.engines.heard import PATH, decode
from tests.engines.process import EngineProcess, eventually

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
TEN = " ".join(
    f"This is sentence number {each}, which is long enough to take a little while." for each in NUMBERS
)
FIRST_SHARE = 0.25


def arrivals(engine: EngineProcess, body: dict[str, Any]) -> tuple[list[float], bytes]:
    """When each part of the answer came, in seconds, and all of it."""
    times, content = [], b""
    with engine.client() as client, client.stream("POST", PATH, json=body) as response:
        assert response.status_code == 200
        for part in response.iter_raw():
            times.append(time.monotonic())
            content += part
    return times, content


def test_sound_leaves_with_the_first_sentence(speech: EngineProcess) -> None:
    shares = []
    for _ in range(3):
        began = time.monotonic()
        times, content = arrivals(speech, {"input": TEN})
        shares.append((times[0] - began) / (times[-1] - began))
        assert len(times) >= 10
        assert decode(content).seconds > 30
    assert min(shares) <= FIRST_SHARE, shares


def test_requests_take_turns(speech: EngineProcess) -> None:
    """A short request that comes second ends long before the long one that came first."""
    long, short = {"input": TEN * 8}, {"input": TEN}
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(arrivals, speech, long)
        eventually(lambda: any(run["done"] >= 5 for run in speech.get("/runs").json()["runs"]), "under way")
        second = pool.submit(arrivals, speech, short)
        long_times, short_times = first.result()[0], second.result()[0]
    assert long_times[0] < short_times[0] < short_times[-1] < long_times[-1]
    during = [each for each in long_times if short_times[0] <= each <= short_times[-1]]
    assert len(during) >= 4, "the long request stood still meanwhile"


def test_progress_counts_sentences(speech: EngineProcess) -> None:
    body = {"input": "A sentence. " * 2000, "response_format": "wav"}
    with speech.sent(PATH, body, "counted"):
        runs = eventually(
            lambda: [
                run
                for run in speech.get("/runs").json()["runs"]
                if run["id"] == "counted" and run["done"] > 2
            ],
            "progress",
        )
    assert (runs[0]["total"], runs[0]["stage"]) == (2000, "speaking")


def test_nothing_is_spoken_for_a_caller_who_left(speech: EngineProcess) -> None:
    before = speech.health()["pieces"]
    body = {"input": "This sentence is said again and again. " * 3000, "response_format": "pcm"}
    with speech.client() as client, client.stream("POST", PATH, json=body) as response:
        next(response.iter_raw())
    eventually(lambda: not speech.running(), "released", 1.0)
    spoken = speech.health()["pieces"]
    assert 0 < spoken - before < 1000
    time.sleep(0.3)
    health = speech.health()
    assert (health["pieces"], health["waiting"]) == (spoken, 0)
