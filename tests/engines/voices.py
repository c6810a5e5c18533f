"""Speech for tests: wav files of the phrases that the demo recognisers know, and the same in other formats."""

import json
import subprocess
import wave
from pathlib import Path
from typing import Any

from tests.engines.process import ENVIRONMENT, ROOT, engines_python

RATE = 16_000
ENCODE = """
import sys, av
source, target, codec, rate, layout = sys.argv[1:]
with av.open(source) as inside, av.open(target, "w") as outside:
    stream = outside.add_stream(codec, rate=int(rate), layout=layout)
    for frame in inside.decode(audio=0):
        outside.mux(stream.encode(frame))
    outside.mux(stream.encode(None))
"""


class Voices:
    """A folder of sound files; `phrases` by id, each with its `plain` and `written` text and its `language`."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        listed = json.loads((model / "phrases.json").read_text("utf-8"))
        self.phrases: dict[str, dict[str, str]] = {each["id"]: each for each in listed}

    def url(self, name: str) -> str:
        return f"file://{self.folder / name}"

    def say(
        self,
        name: str,
        *phrases: str,
        gap: float = 1.2,
        voice: int = 0,
        speed: int = 160,
        pitch: int = 50,
    ) -> str:
        """A new wav file of the phrases; its URL."""
        if not (self.folder / name).exists():
            argv = ["-m", "workers.engines.demo.spoken", "--out", str(self.folder / name), "--gap", str(gap)]
            argv += ["--voice", str(voice), "--speed", str(speed), "--pitch", str(pitch)]
            engines_run(*argv, *phrases)
        return self.url(name)

    def samples_of(self, name: str, *phrases: str, gap: float = 1.2, voice: int = 0) -> bytes:
        self.say(name, *phrases, gap=gap, voice=voice)
        return self.samples(name)

    def encode(self, source: str, target: str, codec: str, rate: int = 44_100, layout: str = "stereo") -> str:
        """The file once more in another format, made by PyAV; its URL."""
        if not (self.folder / target).exists():
            engines_run(
                "-c", ENCODE, str(self.folder / source), str(self.folder / target), codec, str(rate), layout
            )
        return self.url(target)

    def write(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        return self.url(name)

    def samples(self, source: str) -> bytes:
        with wave.open(str(self.folder / source)) as file:
            return file.readframes(file.getnframes())

    def wav(self, name: str, samples: bytes, rate: int = RATE, channels: int = 1) -> str:
        with wave.open(str(self.folder / name), "wb") as file:
            file.setnchannels(channels)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(samples)
        return self.url(name)

    def hour(self, name: str, source: str) -> str:
        """One hour: the same again and again."""
        samples = self.samples(source)
        return self.wav(name, samples * (3600 * RATE * 2 // len(samples)))

    def written(self, *phrases: str) -> str:
        return bare("".join(self.phrases[each]["written"] for each in phrases))

    def plain(self, *phrases: str) -> str:
        return bare("".join(self.phrases[each]["plain"] for each in phrases))


def bare(text: Any) -> str:
    """Without spaces: where a text is joined from segments they are a matter of taste."""
    return "".join(str(text).split())


def engines_run(*argv: str) -> None:
    argv = (engines_python(), *argv)
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
