"""The speech recognition engine: `/v1/audio/transcriptions` and `/v1/audio/translations`.

Options: `vad_model`, `punc_model`, `spk_model` (folders of FunASR models; without a detector the sound is cut at quiet
places, without a speaker model nobody is told apart), `vad_silence_ms` (silence that ends a segment, default 800; 0:
FunASR's own schedule), `max_segment_seconds` (default: the model's, 30 or 60), `quantised` (take model_quant.onnx,
default false), `languages` (of a Paraformer, default zh and en), `batch_seconds` (padded seconds of sound per run,
default 60 on a processor, else 300), `batch_items` (segments per run, default 16), `wait_ms` (how long an idle engine
waits for company, default 5), `max_seconds` (of one file, default 6 hours), `max_channels` (default 8), `decoders`
(decoding processes, default 1), `decode_timeout_s` (for one file, default 300), `threads` (torch threads, default all
cores).
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

import torch

from workers.engines.asgi import Call, EngineApp, Handler, Reply, Stream
from workers.engines.base import Engine, main
from workers.engines.failures import EngineError, EngineFault
from workers.engines.fields import Fields
from workers.engines.launch import Launch, Options
from workers.engines.recognition import answers, request
from workers.engines.recognition.detect import Finder, FsmnFinder, QuietFinder
from workers.engines.recognition.families import load_recogniser
from workers.engines.recognition.folders import load_folder
from workers.engines.recognition.hearing import Mode
from workers.engines.recognition.pipeline import Pipeline, Report, alike_and_near
from workers.engines.recognition.punctuate import Punctuator
from workers.engines.recognition.request import Ask, Input, Setting
from workers.engines.recognition.sound import RATE, opened
from workers.engines.recognition.transcript import Transcript
from workers.engines.sounds.decoders import Decoders, Limits

FILES_AT_ONCE = 8
SWITCH_S = 0.0005


class AsrEngine(Engine):
    """One recogniser with its detector and punctuation."""

    def __init__(self, launch: Launch, app: EngineApp) -> None:
        super().__init__(launch, app)
        options = Options(launch.options)
        on_processor = launch.device.startswith("cpu")
        self.vad_model = options.take("vad_model", "")
        self.punc_model = options.take("punc_model", "")
        self.spk_model = options.take("spk_model", "")
        self.vad_silence_ms = options.take("vad_silence_ms", 800)
        self.max_segment_s = options.take("max_segment_seconds", 0.0)
        self.quantised = options.take("quantised", False)
        self.languages = options.take("languages", ["zh", "en"])
        self.batch_seconds = options.take("batch_seconds", 60.0 if on_processor else 300.0)
        self.batch_items = options.take("batch_items", 16)
        self.wait_s = options.take("wait_ms", 5.0) / 1000
        self.decoding = options.take("decoders", 1)
        self.limits = Limits(
            options.take("max_seconds", 6 * 3600.0),
            options.take("max_channels", 8),
            options.take("decode_timeout_s", 300.0),
        )
        self.threads = options.take("threads", 0) or len(os.sched_getaffinity(0))
        options.close()

    def load(self) -> None:
        torch.set_num_threads(self.threads)
        # The detector's loop is Python, and the model's thread asks for the interpreter again after every operation:
        # at the default of 5 ms each of those would wait longer than the operation takes.
        sys.setswitchinterval(SWITCH_S)
        device = self.launch.device
        self.recogniser = load_recogniser(
            self.launch.model, device, self.threads, self.languages, self.quantised
        )
        punctuator = None
        if self.punc_model:
            # Small models that run beside the recogniser: a device would only add waiting.
            punctuator = Punctuator(load_folder(self.punc_model, "cpu", self.threads), "cpu")
        speakers = None
        if self.spk_model:
            from workers.engines.recognition.speakers import Speakers

            speakers = Speakers(load_folder(self.spk_model, device, self.threads), device)
        pick = alike_and_near(self.batch_items, self.batch_seconds, self.recogniser.window_s)
        self.pipeline = Pipeline(self.recogniser, self.finder(), punctuator, pick, self.wait_s, speakers)
        self.decoders = Decoders(self.decoding, self.limits, RATE)
        self.setting = Setting(
            self.recogniser.abilities,
            marks=punctuator is not None,
            marks_with_itn=self.recogniser.writes_marks(Mode(itn=True)),
            speakers=speakers is not None,
            media=self.launch.media,
        )
        self.pipeline.start()

    def finder(self) -> Finder:
        longest = self.max_segment_s or self.recogniser.longest_s
        if longest > self.recogniser.most_s:
            raise ValueError(f"max_segment_seconds: this model hears {self.recogniser.most_s:g} s at a time")
        if not self.vad_model:
            return QuietFinder(longest)
        return FsmnFinder(load_folder(self.vad_model, "cpu", self.threads), self.vad_silence_ms, longest)

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        return {
            ("POST", "/v1/audio/transcriptions"): partial(self.handle, translate=False),
            ("POST", "/v1/audio/translations"): partial(self.handle, translate=True),
        }

    def unload(self) -> None:
        self.pipeline.stop()
        self.decoders.stop()

    def details(self) -> Mapping[str, Any]:
        window, abilities = self.pipeline.window, self.recogniser.abilities
        return {
            "endpoints": ["audio/transcriptions", *["audio/translations"] * abilities.translates],
            "languages": list(abilities.languages),
            "batches": window.batches,
            "items": window.items,
            "waiting": window.waiting(),
            "speech_seconds": round(self.pipeline.heard_s, 1),
        }

    async def handle(self, call: Call, *, translate: bool) -> Reply | Stream:
        fields = Fields(call.json())
        self.app.check_model(fields)
        ask = request.read(fields, self.setting, translate)
        if ask.batch:
            return await self.several(ask, call)
        if ask.stream:
            return Stream(self.events(ask, call.run.report))
        transcript = await self.transcribe(ask.inputs[0], ask, call.run.report)
        return answers.reply(answers.content(transcript, ask, self.app.served_name), ask)

    async def transcribe(
        self, one: Input, ask: Ask, report: Report, say: Any = lambda text: None
    ) -> Transcript:
        if one.error is not None or one.path is None:
            raise one.error or EngineFault("a file without a path")
        report(0, 0, "decoding")
        sound = await opened(self.decoders, one.path, one.param)
        return await self.pipeline.transcribe(sound, ask, report, say)

    async def events(self, ask: Ask, report: Report) -> AsyncIterator[bytes]:
        """Deltas as stretches of the sound become final, then the whole answer."""
        texts: asyncio.Queue[str | None] = asyncio.Queue()
        work = asyncio.ensure_future(self.transcribe(ask.inputs[0], ask, report, texts.put_nowait))
        work.add_done_callback(lambda task: texts.put_nowait(None))
        try:
            while (text := await texts.get()) is not None:
                yield answers.delta(text)
            yield answers.done(work.result(), ask, self.app.served_name)
        finally:
            work.cancel()

    async def several(self, ask: Ask, call: Call) -> Reply:
        """Every file by itself: what is wrong with one is its own entry."""
        free = asyncio.Semaphore(FILES_AT_ONCE)
        progress = [(0.0, 0.0)] * len(ask.inputs)

        async def entry(place: int, one: Input) -> dict[str, Any]:
            def report(done: float, total: float, stage: str) -> None:
                progress[place] = (done, total)
                call.run.report(sum(each for each, _ in progress), sum(each for _, each in progress), stage)

            head = {"index": place, "filename": one.name}
            async with free:
                try:
                    transcript = await self.transcribe(one, ask, report)
                except EngineError as error:
                    return head | error.body()
            return head | answers.of_several(transcript, ask, self.app.served_name)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(entry(place, one)) for place, one in enumerate(ask.inputs)]
        body = {"object": "list", "model": self.app.served_name, "data": [task.result() for task in tasks]}
        return Reply.json(body)


if __name__ == "__main__":
    main(AsrEngine, "workers.engines.asr")
