"""What must not happen in a shared engine: work for callers who left, padding that is read, decoders that hang."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.process import (
    ENVIRONMENT,
    ROOT,
    EngineProcess,
    demo_model,
    engines_python,
    eventually,
    running,
)
from tests.engines.voices import Voices

pytestmark = pytest.mark.timeout(400)
PATH = "/v1/audio/transcriptions"


def told(script: str, *given: str) -> Any:
    """What a script says that runs where the models run."""
    argv = [engines_python(), "-c", script, *given]
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


LEAVING = """
import asyncio, json, threading, time
import numpy as np
from workers.engines.recognition import pipeline as module
from workers.engines.recognition.detect import STRETCH, Span
from workers.engines.recognition.hearing import Abilities, Heard, Mode, Recogniser
from workers.engines.recognition.request import Ask
from workers.engines.recognition.sound import Sound
from workers.engines.window import Window

calls = {"find": 0, "recognise": 0, "embed": 0}
gate = threading.Semaphore(0)

class Session:
    at = 0
    def feed(self, samples, last):
        calls["find"] += 1
        self.at += len(samples)
        return [Span(self.at - len(samples) + place * 160_000, self.at - len(samples) + (place + 1) * 160_000)
                for place in range(6)]
    def banks(self, span):
        return None

class Finder:
    frontend = None
    def session(self):
        return Session()

class Slow(Recogniser):
    abilities = Abilities(("en",))
    def features(self, samples):
        return 0
    def recognise(self, batch, mode):
        calls["recognise"] += 1
        gate.acquire()
        return [Heard("word")] * len(batch)

class Voices:
    def __init__(self):
        self.window = Window(self.run, lambda items: range(min(4, len(items))))
        self.start, self.stop = self.window.start, self.window.stop
    def run(self, batch):
        calls["embed"] += 1
        gate.acquire()
        return batch.items
    async def embed(self, parts):
        return await self.window.submit([0] * len(parts))

async def main(speakers):
    pipeline = module.Pipeline(
        Slow(), Finder(), None, lambda items: range(min(4, len(items))), 0.0, Voices() if speakers else None
    )
    pipeline.start()
    sound = Sound(np.full(60 * STRETCH, 1000, np.int16))
    ask = Ask([], False, Mode(), False, "json", (), False, speakers, False)
    caller = asyncio.ensure_future(pipeline.transcribe(sound, ask, lambda *told: None))
    for _ in range(5):
        gate.release()
    await asyncio.sleep(0.5)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    seen = dict(calls)
    for _ in range(1000):
        gate.release()
    await asyncio.sleep(0.5)
    return [seen, dict(calls), pipeline.window.waiting()]

print(json.dumps(asyncio.run(main(__import__("sys").argv[1] == "yes"))))
"""


@pytest.mark.parametrize("speakers", ["no", "yes"])
def test_who_leaves_takes_the_stretches_along(speakers: str) -> None:
    """Five stretches are under way when the caller leaves; the run that has begun ends, and nothing follows it."""
    before, after, waiting = told(LEAVING, speakers)
    assert before["find"] >= 2
    assert before["recognise"] >= 1
    assert waiting == 0
    assert after["recognise"] == before["recognise"]
    assert after["embed"] == before["embed"]
    assert after["find"] <= before["find"] + 1


LATE = """
import asyncio, json, threading
from concurrent.futures import ThreadPoolExecutor
from workers.engines.sounds.decoders import Child, Decoders, Limits

starts = []
start = Child._start
Child._start = lambda self: starts.append(1) or start(self)

async def main():
    pool, gate = ThreadPoolExecutor(1), threading.Event()
    asyncio.get_running_loop().set_default_executor(pool)
    decoders = Decoders(1, Limits(60.0, 2, 30.0), 16_000)
    pool.submit(gate.wait)
    order = {"path": "/nowhere", "out": "/dev/null", "max_seconds": 60.0, "max_channels": 2}
    caller = asyncio.ensure_future(decoders._patiently(decoders._children[0], order))
    await asyncio.sleep(0.1)
    caller.cancel()
    await asyncio.sleep(0.1)
    gate.set()
    await asyncio.gather(caller, return_exceptions=True)
    decoders.stop()
    return [caller.cancelled(), len(starts)]

print(json.dumps(asyncio.run(main())))
"""


def test_who_leaves_before_a_thread_is_free_starts_no_decoder() -> None:
    assert told(LATE) == [True, 1]


NO_ROOM = """
import asyncio, json, sys, tempfile
from pathlib import Path
from workers.engines.sounds.decoders import Decoders, Limits

async def main():
    decoders = Decoders(1, Limits(60.0, 2, 30.0), 16_000)
    try:
        usual, tempfile.tempdir = tempfile.gettempdir(), "/nowhere"
        try:
            await decoders.samples(Path(sys.argv[1]))
        except FileNotFoundError:
            tempfile.tempdir = usual
        return len(await asyncio.wait_for(decoders.samples(Path(sys.argv[1])), 30))
    finally:
        decoders.stop()

print(json.dumps(asyncio.run(main())))
"""


def test_a_moment_without_a_place_for_files_costs_no_decoder(voices: Voices) -> None:
    voices.say("tea.wav", "tea")
    assert told(NO_ROOM, str(voices.folder / "tea.wav")) == len(voices.samples("tea.wav")) // 2


KILLED = """
import asyncio, json, os, signal, sys, time
from pathlib import Path
from workers.engines.sounds.decoders import Decoders, Limits

def state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"

async def main():
    decoders = Decoders(1, Limits(60.0, 2, 30.0), 16_000)
    try:
        before = len(await decoders.samples(Path(sys.argv[1])))
        pid = decoders._children[0]._process.pid
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while state(pid) != "gone" and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return [state(pid), before == len(await decoders.samples(Path(sys.argv[1])))]
    finally:
        decoders.stop()

print(json.dumps(asyncio.run(main())))
"""


def test_a_decoder_killed_between_two_files_leaves_no_zombie(voices: Voices) -> None:
    voices.say("tea.wav", "tea")
    assert told(KILLED, str(voices.folder / "tea.wav")) == ["gone", True]


MARKING = """
import asyncio, json, threading
import numpy as np
from workers.engines.recognition import pipeline as module
from workers.engines.recognition.detect import Span
from workers.engines.recognition.hearing import Abilities, Heard, Mode, Recogniser
from workers.engines.recognition.request import Ask
from workers.engines.recognition.sound import Sound

threads = []

class Finder:
    frontend = None
    def session(self):
        return self
    def feed(self, samples, last):
        return [Span(0, len(samples))]
    def banks(self, span):
        return None

class Words(Recogniser):
    abilities = Abilities(("en",))
    def features(self, samples):
        return 0
    def recognise(self, batch, mode):
        return [Heard("word")] * len(batch)

class Marks:
    def session(self):
        return self
    def feed(self, text, segment):
        threads.append(threading.current_thread().name)
        return []
    def finish(self):
        threads.append(threading.current_thread().name)
        return []

async def main():
    pipeline = module.Pipeline(Words(), Finder(), Marks(), lambda items: [0], 0.0)
    pipeline.start()
    ask = Ask([], False, Mode(), True, "json", (), False, False, False)
    await pipeline.transcribe(Sound(np.full(16_000, 1000, np.int16)), ask, lambda *told: None)
    pipeline.stop()
    return threads

print(json.dumps(asyncio.run(main())))
"""


def test_marks_are_made_on_one_thread() -> None:
    assert told(MARKING) == ["speech_0", "speech_0"]


PADDED = """
import dataclasses, json, sys, wave
from functools import partial
import numpy as np, torch
from torch.nn.utils.rnn import pad_sequence
from workers.engines.recognition import funasr_features, sensevoice, sensevoice_onnx
from workers.engines.recognition.families import load_recogniser
from workers.engines.recognition.hearing import Mode

torch.set_num_threads(1)
model, *files = sys.argv[1:]
recogniser = load_recogniser(model, "cpu", 1, ["zh", "en"])
sounds = []
for name in files:
    with wave.open(name) as file:
        sounds.append(np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768)
features = [recogniser.features(sound) for sound in sounds]
mode = Mode(itn=recogniser.abilities.itn, words=True)
singly = [recogniser.recognise([each], mode)[0] for each in features]
for module in (funasr_features, sensevoice, sensevoice_onnx):
    module.pad_sequence = partial(pad_sequence, padding_value=3.0)

def spoil(scores, lengths):
    # What stands behind the end of a row now says what its middle says.
    for row, length in enumerate(int(each) for each in lengths):
        scores[row, length:] = scores[row, 4:length].repeat(9, 1)[: scores.shape[1] - length]
    return scores

if hasattr(recogniser, "session"):
    class Session:
        real = recogniser.session
        def run(self, names, given):
            scores = torch.from_numpy(self.real.run(names, given)[0])
            return [spoil(scores, given["speech_lengths"] + 4).numpy()]
    recogniser.session = Session()
elif hasattr(recogniser, "model"):
    plain = recogniser.model.encoder.forward
    def forward(speech, lengths, *rest):
        output, counts = plain(speech, lengths, *rest)
        return spoil(output.clone(), lengths), counts
    recogniser.model.encoder.forward = forward
together = recogniser.recognise(features, mode)
print(json.dumps([[dataclasses.asdict(each) for each in found] for found in (singly, together)]))
"""


@pytest.mark.parametrize("name", ["demo-asr", "demo-asr-onnx", "demo-paraformer"])
def test_padding_is_never_read(voices: Voices, name: str) -> None:
    """Rows of very different lengths, padded with what is no silence: each row is what it is alone."""
    chosen = (("hello",), ("tea", "cat", "train"), ("nine",), ("window", "station"))
    files = [f"padded-{place}.wav" for place in range(len(chosen))]
    for file, phrases in zip(files, chosen, strict=True):
        voices.say(file, *phrases, gap=0.3)
    singly, together = told(PADDED, str(demo_model(name)), *(str(voices.folder / each) for each in files))
    for one, other in zip(singly, together, strict=True):
        assert one["text"]
        assert [word["text"] for word in one["words"]] == [word["text"] for word in other["words"]]
        for field in ("text", "tokens", "language"):
            assert one[field] == other[field]
        if one["avg_logprob"] is not None:
            assert one["avg_logprob"] == pytest.approx(other["avg_logprob"], abs=0.01)


@pytest.fixture(scope="module")
def impatient(socket_dir: Path, voices: Voices, asr_model: Path) -> Iterator[EngineProcess]:
    options = {"decode_timeout_s": 8.0, "threads": 1}
    with running("asr", socket_dir, str(asr_model), options=options, media=voices.folder) as engine:
        yield engine


def decoder_of(engine: EngineProcess) -> int | None:
    """The decoding process, found as a child that runs its module."""
    tasks = Path(f"/proc/{engine.process.pid}/task").glob("*/children")
    for child in " ".join(each.read_text() for each in tasks).split():
        if b"sounds.decoder" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    return None


def stopped(engine: EngineProcess) -> int:
    """The decoder, hanging from now on."""
    pid = decoder_of(engine)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    return pid


@pytest.fixture(scope="module")
def packed(voices: Voices) -> str:
    """A file that needs the decoder."""
    voices.say("tea.wav", "tea")
    return voices.encode("tea.wav", "tea.flac", "flac")


def test_a_decoder_that_hangs_is_killed_and_replaced(
    impatient: EngineProcess, voices: Voices, packed: str
) -> None:
    body = {"file": packed}
    assert impatient.post(PATH, body).json()["text"] == voices.phrases["tea"]["written"]
    hanging = stopped(impatient)
    response = impatient.post(PATH, body)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_audio")
    assert not Path(f"/proc/{hanging}").exists()
    assert impatient.post(PATH, body).json()["text"] == voices.phrases["tea"]["written"]
    assert decoder_of(impatient) not in (None, hanging)


def test_who_leaves_a_hanging_decoder_frees_it(impatient: EngineProcess, voices: Voices, packed: str) -> None:
    assert impatient.post(PATH, {"file": packed}).status_code == 200
    hanging = stopped(impatient)
    with impatient.sent(PATH, {"file": packed}, "hanging"):
        eventually(lambda: "hanging" in impatient.running(), "the request is there")
    eventually(lambda: not Path(f"/proc/{hanging}").exists(), "the decoder is gone", 3.0)
    assert impatient.post(PATH, {"file": packed}).json()["text"] == voices.phrases["tea"]["written"]
