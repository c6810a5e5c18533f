"""What we do faster than FunASR must give what FunASR gives: features, segments, texts."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.engines.process import ENVIRONMENT, ROOT, engines_python
from tests.engines.voices import Voices

pytestmark = pytest.mark.timeout(400)
COMPARE = """
import json, sys, wave
import numpy as np, torch
from funasr.frontends import wav_frontend
from funasr.utils.fbank import fbank as library
from workers.engines.recognition.banks import fbank
from workers.engines.recognition.detect import STRETCH, FsmnFinder
from workers.engines.recognition.families import load_recogniser
from workers.engines.recognition.folders import load_folder
from workers.engines.recognition.funasr_features import from_banks, same_banks
from workers.engines.recognition.hearing import Mode
from workers.engines.recognition.pipeline import Piece, alike_and_near

torch.set_num_threads(1)
asr, vad, sound = sys.argv[1:]
with wave.open(sound) as file:
    samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
found = {}

settings = {"num_mel_bins": 80, "frame_length": 25, "frame_shift": 10, "dither": 0.0, "energy_floor": 0.0}
settings |= {"window_type": "hamming", "sample_frequency": 16000}
scaled = torch.from_numpy(samples)[None] * 32768
found["banks"] = float((fbank(scaled, None, **settings) - library(scaled, **settings)).abs().max())

finder = FsmnFinder(load_folder(vad, "cpu", 1), 800, 30.0)
session, spans, features = finder.session(), [], []
recogniser = load_recogniser(asr, "cpu", 1, [])
assert same_banks(finder.frontend, recogniser.frontend)
for start in range(0, len(samples), STRETCH):
    for span in session.feed(samples[start : start + STRETCH], start + STRETCH >= len(samples)):
        spans.append([span.start // 16, span.end // 16])
        features.append(from_banks(recogniser.frontend, session.banks(span)))
        direct = recogniser.features(samples[span.start : span.end])
        assert torch.equal(features[-1], direct)

# The same through FunASR's own code: its features, its detector on the whole sound, its inference one by one.
plain, mine = load_folder(vad, "cpu", 1), load_folder(asr, "cpu", 1)
wav_frontend.kaldi = type("Library", (), {"fbank": staticmethod(library)})
plain.model.vad_opts.max_single_segment_time = 30000
whole, _ = plain.model.inference(
    [torch.from_numpy(samples)], key=["k"], frontend=plain.frontend, cache={}, is_final=True,
    **(plain.settings | {"max_end_silence_time": 800}),
)
found["spans"] = [spans, whole[0]["value"]]
found["texts"] = [[], []]
for mode in (Mode(itn=True), Mode(itn=False)):
    for at in range(0, len(features), 16):
        found["texts"][0] += [one.text for one in recogniser.recognise(features[at : at + 16], mode)]
    for start, end in spans:
        with torch.no_grad():
            answer, _ = mine.model.inference(
                [samples[start * 16 : end * 16]], key=["k"], tokenizer=mine.tokenizer, frontend=mine.frontend,
                language="auto", use_itn=mode.itn, **mine.settings,
            )
        found["texts"][1].append(answer[0]["text"].rpartition("|>")[2].strip())

waiting = [Mode(itn=place % 3 == 0) for place in range(12)]
pick = alike_and_near(8, 60.0)
pieces = [Piece(mode, None, 1000 + 10 * place) for place, mode in enumerate(waiting)]
found["together"] = [sorted(pick(pieces)), sorted(pick(pieces[1:])), sorted(alike_and_near(8, 3.5)(pieces))]
found["together"].append(sorted(alike_and_near(8, 60.0, 30.0)(pieces)))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def compared(asr_model: Path, vad_model: Path, voices: Voices) -> dict[str, Any]:
    """All phrases in every voice, long enough for several stretches."""
    parts = [
        voices.samples_of(f"all-{voice}-{gap}.wav", *voices.phrases, voice=voice, gap=gap)
        for voice in range(3)
        for gap in (0.5, 1.2)
    ]
    voices.wav("all.wav", b"".join(parts))
    argv = [engines_python(), "-c", COMPARE, str(asr_model), str(vad_model), str(voices.folder / "all.wav")]
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_filter_banks_are_kaldis(compared: dict[str, Any]) -> None:
    assert compared["banks"] < 0.01


def test_speech_found_in_stretches_is_that_of_the_whole(compared: dict[str, Any]) -> None:
    ours, theirs = compared["spans"]
    assert len(ours) > 30
    assert ours == theirs


def test_texts_of_shared_runs_are_those_of_single_ones(compared: dict[str, Any]) -> None:
    ours, theirs = compared["texts"]
    assert ours == theirs


def test_only_segments_of_one_mode_run_together(compared: dict[str, Any]) -> None:
    """The oldest one decides; of the others those of its mode, nearest in length, within the seconds of a run."""
    assert compared["together"] == [[0, 3, 6, 9], [0, 1, 3, 4, 6, 7, 9, 10], [0, 3, 6], [0, 3]]


SEGMENTS = """
import json, random, sys
import torch
import funasr.models.fsmn_vad_streaming.model as library
from workers.engines.recognition.detect import FsmnFinder
from workers.engines.recognition.folders import load_folder
from workers.engines.recognition.segmenter import Segmenter

chance, differ, found = random.Random(4), [], 0
loaded = load_folder(sys.argv[1], "cpu", 1)
model, options = loaded.model, loaded.model.vad_opts
names = (library.FrameState.kFrameStateSil, library.FrameState.kFrameStateSpeech)


def count_frames(rows, cache):
    stats, options.nn_eval_block_size = cache["stats"], rows.shape[1]
    stats.frm_cnt += rows.shape[1]
    stats.scores = rows if stats.scores is None else torch.cat((stats.scores, rows), 1)


model.ComputeScores = count_frames
for case in range(150):
    options.window_size_ms = chance.choice((100, 200, 300))
    options.sil_to_speech_time_thres = min(chance.choice((50, 100, 150)), options.window_size_ms - 10)
    options.speech_to_sil_time_thres = chance.choice((0, 50, options.sil_to_speech_time_thres))
    options.do_extend = chance.choice((1, 1, 0))
    options.lookback_time_start_point = chance.choice((0, 100, 200))
    options.lookahead_time_end_point = chance.choice((0, 50, 100))
    options.max_single_segment_time = chance.choice((800, 3000, 60000))
    silence = options.speech_to_sil_time_thres + chance.choice((200, 505, 800, 1500))
    speech, size = [], chance.choice((50, 400, 2500))
    while len(speech) < size:
        share = chance.choice((0, 0, 1, 1, 0.5, 0.9, 0.1))
        speech += [chance.random() < share for _ in range(chance.choice((1, 5, 20, 60, 200)))]
    cuts = [0, *sorted(chance.sample(range(1, len(speech)), chance.choice((0, 1, 3)))), len(speech)]
    cache, theirs = {}, []
    model.init_cache(cache, max_end_silence_time=silence)
    model.GetFrameState = lambda t, cache: names[speech[t + cache["stats"].last_drop_frames]]
    finder = FsmnFinder(loaded, silence, options.max_single_segment_time / 1000)
    segmenter, ours = Segmenter(finder.rules, finder.end_silence(silence)), []
    for start, end in zip(cuts, cuts[1:]):
        rows, sound = torch.zeros(1, end - start, 1), torch.zeros(1, (end - start - 1) * 160 + 400)
        last = end == len(speech)
        for each in model.forward(rows, sound, cache=cache, is_final=last, is_streaming_input=False):
            theirs += each
        ours += [[first * 10, after * 10] for first, after in segmenter.feed(speech[start:end], last)]
    found += len(ours)
    if ours != theirs:
        differ.append([case, ours, theirs])
print(json.dumps([found, differ[:1]]))
"""


def test_segments_are_funasrs_whatever_is_heard(vad_model: Path) -> None:
    """Speech and silence by chance, under many rules, in one piece and in several."""
    argv = [engines_python(), "-c", SEGMENTS, str(vad_model)]
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found, differ = json.loads(done.stdout.splitlines()[-1])
    assert found > 500
    assert differ == []


SCHEDULED = """
import json, sys, wave
import numpy as np, torch
from funasr.models.fsmn_vad_streaming.model import DEFAULT_SILENCE_SCHEDULE
from workers.engines.recognition.detect import SCHEDULE, STRETCH, FsmnFinder
from workers.engines.recognition.folders import load_folder

assert SCHEDULE == tuple(DEFAULT_SILENCE_SCHEDULE)
with wave.open(sys.argv[2]) as file:
    samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
loaded = load_folder(sys.argv[1], "cpu", 1)
loaded.model.vad_opts.max_single_segment_time = 90_000
session, spans = FsmnFinder(loaded, 0, 90.0).session(), []
for start in range(0, len(samples), STRETCH):
    for span in session.feed(samples[start : start + STRETCH], start + STRETCH >= len(samples)):
        spans.append([span.start // 16, span.end // 16])
whole, _ = loaded.model.inference(
    [torch.from_numpy(samples)], key=["k"], frontend=loaded.frontend, cache={}, is_final=True,
    **(loaded.settings | {"chunk_size": 60_000}),
)
print(json.dumps([spans, whole[0]["value"]]))
"""


def test_the_schedule_for_silence_is_funasrs(vad_model: Path, voices: Voices) -> None:
    parts = [
        voices.samples_of(f"all-0-{gap}.wav", *voices.phrases, voice=0, gap=gap) for gap in (0.5, 1.2) * 3
    ]
    voices.wav("scheduled.wav", b"".join(parts))
    argv = [engines_python(), "-c", SCHEDULED, str(vad_model), str(voices.folder / "scheduled.wav")]
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours, theirs = json.loads(done.stdout.splitlines()[-1])
    assert len(ours) > 3
    assert ours == theirs
