"""The speech engine: `/v1/audio/speech`, spoken sentence by sentence and sent while it is made.

Options: `backend` (`espeak`, `kokoro`, `upstream` or `maskgct`; default: found from the source and the other
options), `max_characters` (of an input, default 4096), `piece_characters` (the longest piece spoken at once, default
300), `gap_ms` (silence between pieces, default 120), `reference_seconds` (the longest recording of a voice to clone,
default 30), and those of the backend: see `workers.engines.voices`.

The sound of a request is made in order, one piece ahead of what is sent; several requests take turns piece by piece.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import numpy as np

from workers.engines import encoding
from workers.engines.asgi import Call, EngineApp, Handler, Stream
from workers.engines.base import Engine, main
from workers.engines.fields import Fields
from workers.engines.launch import Launch, Options
from workers.engines.runs import Run
from workers.engines.sounds.decoders import Decoders
from workers.engines.sounds.decoders import Limits as DecoderLimits
from workers.engines.voices.backend import Backend
from workers.engines.voices.choice import choose_backend
from workers.engines.voices.encode import FORMATS, encoder, silence, whole_wav
from workers.engines.voices.reference import read_reference
from workers.engines.voices.request import Limits, SpeechRequest, read_request
from workers.engines.voices.sound import RATE, Samples, Sound, converted

# A file without a sample is none that a player opens.
LEAST_S = 0.05
CHANNELS, PATIENCE_S = 8, 30.0  # of recordings


class SpeechEngine(Engine):
    """One source of voices."""

    backend: Backend

    def __init__(self, launch: Launch, app: EngineApp) -> None:
        super().__init__(launch, app)
        options = Options(launch.options)
        self.limits = Limits(options.take("max_characters", 4096), options.take("piece_characters", 300))
        self.gap_s = options.take("gap_ms", 120.0) / 1000
        self.reference_s = options.take("reference_seconds", 30.0)
        self.make_backend = choose_backend(launch, options)
        options.close()
        if self.limits.characters < 1 or self.limits.piece < 20 or self.gap_s < 0:
            raise ValueError("max_characters must be at least 1, piece_characters 20, gap_ms 0")

    def load(self) -> None:
        self.backend = self.make_backend()
        # One is enough: a recording is short, and what hangs in it holds up nobody who brings none.
        children = 1 if self.backend.facts.clones else 0
        self.decoders = Decoders(children, DecoderLimits(self.reference_s, CHANNELS, PATIENCE_S), RATE)

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        return {("POST", "/v1/audio/speech"): self.speech}

    def unload(self) -> None:
        self.backend.close()
        self.decoders.stop()

    def details(self) -> Mapping[str, Any]:
        facts = self.backend.facts
        return {
            "backend": facts.name,
            "voices": list(facts.voices),
            "languages": list(facts.languages),
            "sample_rate": RATE,
            "max_characters": self.limits.characters,
            "clones": facts.clones,
            **self.backend.counts(),
        }

    async def speech(self, call: Call) -> Stream:
        fields = Fields(call.json())
        self.app.check_model(fields)
        request = await asyncio.to_thread(read_request, fields, self.backend.facts, self.limits)
        if request.recording is not None:
            request = request.cloning(
                await read_reference(request.recording, self.launch.media, self.decoders)
            )
        pieces = self.encoded(request, call.run)
        if request.events:
            return Stream(events(pieces, request.characters))
        return Stream(pieces, FORMATS[request.form].media)

    async def encoded(self, request: SpeechRequest, run: Run) -> AsyncGenerator[bytes, None]:
        """The bytes of the answer, at least one batch of them for every piece."""
        alone = len(request.utterances) == 1
        form = encoder(request.form)
        async with aclosing(self.spoken(request, run)) as sounds:
            async for samples in sounds:
                if alone and request.form == "wav":
                    # All of it is here, so the header can tell the truth.
                    yield await asyncio.to_thread(whole_wav, samples)
                    return
                written = await asyncio.to_thread(form.feed, samples)
                if written:
                    yield written
        rest = await asyncio.to_thread(form.close)
        if rest:
            yield rest

    async def spoken(self, request: SpeechRequest, run: Run) -> AsyncGenerator[Samples, None]:
        """Samples piece by piece, each with the gap before it.

        While one is used, the next is already being made; but not while the first is, which nobody may hold up.
        """
        total = len(request.utterances)
        run.report(0, total, "speaking")
        gap = silence(self.gap_s / request.speed)
        ahead = asyncio.create_task(self.backend.speak(request.utterances[0]))
        try:
            for number in range(1, total + 1):
                sound = await ahead
                if 1 < number < total:
                    ahead = asyncio.create_task(self.backend.speak(request.utterances[number]))
                samples = await asyncio.to_thread(finished, sound, request.tempo)
                run.report(number, total)
                yield samples if number == 1 else np.concatenate([gap, samples])
                if number == 1 < total:
                    ahead = asyncio.create_task(self.backend.speak(request.utterances[number]))
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)


def finished(sound: Sound, tempo: float) -> Samples:
    """Samples at the rate of the answer, at the tempo that the voice could not keep itself; never none."""
    samples = converted(sound, RATE, tempo)
    return samples if len(samples) else silence(LEAST_S)


async def events(pieces: AsyncGenerator[bytes, None], characters: int) -> AsyncIterator[bytes]:
    """The same bytes as server-sent events. Usage counts characters: a voice has no tokens."""
    async with aclosing(pieces):
        async for piece in pieces:
            audio = base64.b64encode(piece).decode()
            yield encoding.event({"type": "speech.audio.delta", "audio": audio})
    usage = {"input_tokens": characters, "output_tokens": 0, "total_tokens": characters}
    yield encoding.event({"type": "speech.audio.done", "usage": usage})
    yield encoding.DONE


if __name__ == "__main__":
    main(SpeechEngine, "workers.engines.speech")
