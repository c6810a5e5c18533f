"""espeak-ng in a process of its own, because some texts crash it.

Seen with 1.52: `)-e` spoken as Vietnamese ends in a segmentation fault. So the library runs in a child; when that dies,
its request fails, and the next one starts a new child. Run as a module this file is the child.

Between the two: one line of JSON there; one line back, and the samples behind it. The child ends when its input does,
so it does not outlive the engine. `EspeakProcess` has the methods of `Espeak`, and the same rule: one thread at a time.
"""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from workers.engines.espeak import NORMAL_RATE, Espeak, EspeakError, Language, Samples

LOOK_S = 0.02
# A piece mostly takes 20 ms; one that takes this long after its caller left is not waited for.
PATIENCE_S = 0.25


FAULTS = {-number for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)}


class Crashed(EspeakError):
    """The text was too much for the library. It will be again."""


class EspeakProcess:
    """The library in a child process."""

    def __init__(self) -> None:
        """Raises EspeakError where the library does not start."""
        self._start()

    def synthesize(
        self,
        text: str,
        language: str = "en-us",
        variant: str | None = None,
        rate: int = NORMAL_RATE,
        stop: Callable[[], bool] = lambda: False,
    ) -> tuple[Samples, int]:
        """See `Espeak.synthesize`. Raises Crashed too. A `stop` ends a child that goes on."""
        order = {"text": text, "language": language, "variant": variant, "rate": rate}
        answer, content = self._ask({"synthesize": order}, stop)
        return np.frombuffer(content, np.int16), int(answer["rate"])

    def phonemes(self, text: str, language: str = "en-us", tie: str = "") -> list[str]:
        """See `Espeak.phonemes`. Raises Crashed too."""
        answer, _ = self._ask({"phonemes": {"text": text, "language": language, "tie": tie}}, lambda: False)
        return list(answer["phonemes"])

    def close(self) -> None:
        """End the child."""
        self._child.kill()
        self._child.communicate()

    def _start(self) -> None:
        argv = [sys.executable, "-m", "workers.engines.espeak_process"]
        # Ended by `close`, or by the end of its input.
        self._child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        hello, _ = self._receive(lambda: False)
        self.sample_rate = int(hello["rate"])
        self.languages = {
            each["code"]: Language(**each | {"codes": tuple(each["codes"])}) for each in hello["languages"]
        }

    def _ask(self, order: dict[str, Any], stop: Callable[[], bool]) -> tuple[dict[str, Any], bytes]:
        if self._child.poll() is not None:
            self.close()
            self._start()
        target = stream(self._child.stdin)
        try:
            target.write(json.dumps(order).encode() + b"\n")
            target.flush()
        except BrokenPipeError as error:
            raise EspeakError("espeak-ng ended") from error
        return self._receive(stop)

    def _receive(self, stop: Callable[[], bool]) -> tuple[dict[str, Any], bytes]:
        """The child's answer. Kills the child when nobody waits and it goes on."""
        source = stream(self._child.stdout)
        stopped_at = None
        while not select.select([source], [], [], LOOK_S)[0]:
            if stop():
                stopped_at = stopped_at or time.monotonic()
                if time.monotonic() - stopped_at > PATIENCE_S:
                    self._child.kill()
        line = source.readline()
        answer: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {"ended": True}
        size = int(answer.get("bytes", 0))
        content = source.read(size)
        if "ended" in answer or len(content) < size:
            status = self._child.wait()
            raise (Crashed if status in FAULTS else EspeakError)(f"espeak-ng ended with {status}")
        if "error" in answer:
            raise EspeakError(answer["error"])
        return answer, content


def stream(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise EspeakError("espeak-ng's process has no pipes")
    return pipe


def serve() -> None:
    """The child: answers until its input ends."""
    target = sys.stdout.buffer
    try:
        espeak = Espeak()
    except EspeakError as error:
        reply(target, {"error": str(error)})
        return
    languages = [
        {"code": each.code, "title": each.title, "identifier": each.identifier, "codes": each.codes}
        for each in espeak.languages.values()
    ]
    reply(target, {"rate": espeak.sample_rate, "languages": languages})
    for line in sys.stdin.buffer:
        order = json.loads(line)
        try:
            if "phonemes" in order:
                reply(target, {"phonemes": espeak.phonemes(**order["phonemes"])})
            else:
                samples, rate = espeak.synthesize(**order["synthesize"])
                content = samples.tobytes()
                reply(target, {"rate": rate, "bytes": len(content)}, content)
        except EspeakError as error:
            reply(target, {"error": str(error)})


def reply(target: IO[bytes], answer: dict[str, Any], content: bytes = b"") -> None:
    target.write(json.dumps(answer).encode() + b"\n" + content)
    target.flush()


if __name__ == "__main__":
    serve()
