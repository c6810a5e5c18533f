"""Listening to what the speech engine answers: decoding, length and loudness. Plain Python, because the tests'
environment has PyAV but no numpy."""

import io
import json
import math
from array import array
from base64 import b64decode
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import av

from tests.engines.process import EngineProcess

PATH = "/v1/audio/speech"


@dataclass(frozen=True)
class Heard:
    """Mono samples between -32768 and 32767."""

    samples: "array[int]"
    rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    @property
    def loudness(self) -> float:
        """Root mean square."""
        return math.sqrt(sum(one * one for one in self.samples) / max(1, len(self.samples)))


def decode(content: bytes) -> Heard:
    resampler = av.AudioResampler(format="s16", layout="mono")
    samples: array[int] = array("h")
    with av.open(io.BytesIO(content)) as container:
        rate = container.streams.audio[0].rate
        for frame in [*container.decode(audio=0), None]:
            for ready in resampler.resample(frame):
                samples.frombytes(bytes(ready.planes[0])[: ready.samples * 2])
    return Heard(samples, rate)


def pcm(content: bytes) -> Heard:
    return Heard(array("h", content), 24_000)


def said(engine: EngineProcess, text: str, **more: Any) -> bytes:
    response = engine.post(PATH, {"input": text, **more})
    assert response.status_code == 200, response.text
    return bytes(response.content)


def wav(engine: EngineProcess, text: str, **more: Any) -> Heard:
    return decode(said(engine, text, response_format="wav", **more))


def refused(engine: EngineProcess, body: dict[str, Any]) -> tuple[int, str | None]:
    """Status of an error and the field that it names."""
    response = engine.post(PATH, body)
    return response.status_code, response.json()["error"]["param"]


def spoken_events(raw: str) -> list[Any]:
    """The events of an answer that ended as it should."""
    blocks = raw.removesuffix("\n\n").split("\n\n")
    assert blocks.pop() == "data: [DONE]"
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def audio_of(events: list[Any]) -> bytes:
    return b"".join(b64decode(event["audio"]) for event in events if event["type"] == "speech.audio.delta")


def features(heard: Heard) -> list[tuple[float, float]]:
    """Loudness (decades) and share of zero crossings of every 20 ms."""
    step = heard.rate // 50
    found = []
    for at in range(0, len(heard.samples) - step, step):
        frame = heard.samples[at : at + step]
        loud = math.sqrt(sum(one * one for one in frame) / step)
        turns = sum((one < 0) != (other < 0) for one, other in pairwise(frame))
        found.append((math.log10(loud + 10), turns / step))
    return found


def difference(left: Heard, right: Heard) -> float:
    """How unlike two sounds are, from 0: features compared in place, and a difference in length.

    espeak-ng's sound is not the same bit by bit twice (seen: phases and some samples of its length vary).
    """
    one, other = features(left), features(right)
    pairs = list(zip(one, other, strict=False))
    apart = sum(abs(a[0] - b[0]) + 4 * abs(a[1] - b[1]) for a, b in pairs) / max(1, len(pairs))
    return apart + abs(len(one) - len(other)) / max(1, len(one), len(other))
