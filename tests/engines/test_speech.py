"""The speech engine with espeak-ng's voices: formats, languages, voices, speed, and what it refuses."""

import struct
from itertools import combinations
from typing import Any

import pytest

from tests.engines.heard import (
    PATH,
    Heard,
    audio_of,
    decode,
    difference,
    pcm,
    refused,
    said,
    spoken_events,
    wav,
)
from tests.engines.process import EngineProcess

ENGLISH = "Hello there. The quick brown fox jumps over the lazy dog, and then it sleeps for an hour."
MANDARIN = "你好。今天天气很好，我们去公园散步吧。"
OPENAI_VOICES = [
    *("alloy", "ash", "ballad", "coral", "echo", "fable", "nova", "onyx", "sage", "shimmer", "verse"),
]
MEDIA = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


@pytest.mark.parametrize("form", MEDIA)
def test_every_format_holds_the_same_sound(speech: EngineProcess, form: str) -> None:
    whole = wav(speech, ENGLISH)
    response = speech.post(PATH, {"input": ENGLISH, "response_format": form})
    assert response.headers["content-type"] == MEDIA[form]
    heard = pcm(response.content) if form == "pcm" else decode(response.content)
    assert heard.seconds == pytest.approx(whole.seconds, rel=0.05)
    assert heard.loudness == pytest.approx(whole.loudness, rel=0.1)
    assert heard.rate == (48_000 if form == "opus" else 24_000)


def test_mp3_is_the_default(speech: EngineProcess) -> None:
    response = speech.post(PATH, {"input": "Hello."})
    assert response.headers["content-type"] == "audio/mpeg"
    assert response.content[:2] in (b"\xff\xf3", b"\xff\xfb")


def sizes(content: bytes) -> tuple[int, int]:
    return struct.unpack("<I", content[4:8])[0], struct.unpack("<I", content[40:44])[0]


def test_a_wav_of_one_sentence_says_its_size(speech: EngineProcess) -> None:
    content = said(speech, "Only one sentence.", response_format="wav")
    assert sizes(content) == (len(content) - 8, len(content) - 44)


def test_a_wav_of_several_sentences_leaves_its_size_open(speech: EngineProcess) -> None:
    content = said(speech, "One sentence. And another.", response_format="wav")
    assert sizes(content) == (0xFFFFFFFF, 0xFFFFFFFF)
    assert decode(content).seconds > 1.5


@pytest.mark.parametrize("speed", [0.25, 0.5, 2, 4])
def test_speed_changes_the_length(speech: EngineProcess, speed: float) -> None:
    normal = wav(speech, ENGLISH).seconds
    assert wav(speech, ENGLISH, speed=speed).seconds == pytest.approx(normal / speed, rel=0.1)


def alike(left: Heard, right: Heard) -> bool:
    """The same words in the same voice; see `difference` (seen: below 0.06 then, above 0.1 for another voice)."""
    return difference(left, right) < 0.08


@pytest.mark.parametrize("text", [ENGLISH, MANDARIN])
def test_both_languages_are_audible(speech: EngineProcess, text: str) -> None:
    heard = wav(speech, text)
    assert 2 < heard.seconds < 12
    assert heard.loudness > 500


def test_different_texts_sound_different(speech: EngineProcess) -> None:
    assert not alike(wav(speech, "你好"), wav(speech, "再见"))
    assert not alike(wav(speech, "hello"), wav(speech, "goodbye"))


def test_the_script_chooses_the_language_of_each_sentence(speech: EngineProcess) -> None:
    chinese, english = "今天天气很好。", "The weather is fine."
    assert alike(wav(speech, chinese), wav(speech, chinese, language="zh-CN"))
    assert not alike(wav(speech, chinese), wav(speech, chinese, language="en"))
    assert alike(wav(speech, english), wav(speech, english, language="en-us"))
    both = wav(speech, f"{english} {chinese}")
    assert both.seconds == pytest.approx(
        wav(speech, english).seconds + wav(speech, chinese).seconds + 0.12, abs=0.05
    )


def test_other_languages_are_spoken_when_named(speech: EngineProcess) -> None:
    text = "Guten Morgen, wie geht es dir?"
    assert not alike(wav(speech, text, language="de"), wav(speech, text))


@pytest.mark.parametrize("text", ["Hello there.", "你好。"])
def test_voices_differ(speech: EngineProcess, text: str) -> None:
    sounds = [wav(speech, text, voice=name) for name in ("default", "f2", "m3", "alloy", "onyx")]
    assert all(not alike(one, other) for one, other in combinations(sounds, 2))


@pytest.mark.parametrize("name", OPENAI_VOICES)
def test_names_of_openai_are_known(speech: EngineProcess, name: str) -> None:
    assert wav(speech, "Hi.", voice={"id": name}).loudness > 300


def test_events_carry_the_same_sound(speech: EngineProcess) -> None:
    text = "Hello there. Good day."
    response = speech.post(PATH, {"input": text, "stream_format": "sse", "response_format": "pcm"})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = spoken_events(response.text)
    assert [event["type"] for event in events] == ["speech.audio.delta"] * 2 + ["speech.audio.done"]
    assert events[-1]["usage"]["total_tokens"] == len(text)
    assert alike(pcm(audio_of(events)), wav(speech, text))


def test_health_says_what_can_be_asked(speech: EngineProcess) -> None:
    health = speech.health()
    assert (health["backend"], health["sample_rate"], health["max_characters"]) == ("espeak", 24_000, 200_000)
    assert {"default", "f2", "m3"} <= set(health["voices"])
    assert {"en-us", "en-gb", "cmn"} <= set(health["languages"])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": " \n\t "}, "input"),
        ({"input": "\x00\x01\x1b"}, "input"),
        ({"input": 7}, "input"),
        ({"input": ["a"]}, "input"),
        ({"input": "a" * 200_001}, "input"),
        ({"input": "a", "voice": "nobody"}, "voice"),
        ({"input": "a", "voice": 7}, "voice"),
        ({"input": "a", "voice": {"id": 7}}, "id"),
        ({"input": "a", "voice": "../../etc/passwd"}, "voice"),
        ({"input": "a", "language": "klingon"}, "language"),
        ({"input": "a", "speed": 0.2}, "speed"),
        ({"input": "a", "speed": 4.1}, "speed"),
        ({"input": "a", "speed": "fast"}, "speed"),
        ({"input": "a", "response_format": "exe"}, "response_format"),
        ({"input": "a", "stream_format": "json"}, "stream_format"),
        ({"input": "a", "instructions": "whisper"}, "instructions"),
        ({"input": "a", "reference_audio": "file:///etc/passwd"}, "reference_audio"),
        ({"input": "a", "prompt_audio": "file:///etc/passwd"}, "prompt_audio"),
        ({"input": "a", "reference_text": "b"}, "reference_text"),
    ],
)
def test_wrong_bodies_name_their_field(speech: EngineProcess, body: dict[str, Any], param: str) -> None:
    assert refused(speech, body) == (400, param)


@pytest.mark.parametrize(
    "content", [b'{"input": "a", "speed": NaN}', b'{"input": "\\ud800"}', b'{"input": "\xff"}']
)
def test_what_is_no_json_is_refused(speech: EngineProcess, content: bytes) -> None:
    with speech.client() as client:
        assert client.post(PATH, content=content).status_code == 400


def test_the_limit_is_in_the_message(speech: EngineProcess) -> None:
    assert "200000" in speech.post(PATH, {"input": "a" * 200_001}).json()["error"]["message"]


def test_the_known_voices_are_in_the_message(speech: EngineProcess) -> None:
    message = speech.post(PATH, {"input": "a", "voice": "nobody"}).json()["error"]["message"]
    assert "f2" in message
    assert "alloy" in message


@pytest.mark.parametrize(
    "text",
    [
        '<speak><prosody rate="x-fast">Hello</prosody><break time="60s"/></speak>',
        "[[h@l'oU]] [[_:5000]]",
        "...",
        "!!! ??? ---",
        "\U0001f600\u200d\U0001f468\u0300\u202e",
        "(" * 500,
        "字" * 700,
        "a" * 2000,
    ],
)
def test_odd_texts_do_no_harm(speech: EngineProcess, text: str) -> None:
    heard = decode(said(speech, text))
    assert heard.seconds < 0.25 * len(text) + 25


def test_control_characters_are_no_commands(speech: EngineProcess) -> None:
    """espeak-ng reads \\x01 and a number with a letter as a change of rate, pitch or voice."""
    plain = wav(speech, "one 450S two three four five six seven")
    assert wav(speech, "one \x01450S two three four five six seven").seconds == pytest.approx(
        plain.seconds, rel=0.02
    )
