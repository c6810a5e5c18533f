"""Pictures, sound, video, text of sound, and order: how answers of engines become answers of the API."""

import asyncio
import base64
import hashlib
import io
import json
import math
import struct
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from inferq.config import Settings
from inferq.endpoints.sound import MOST_FILES
from inferq.media.facts import Facts
from inferq.media.prober import Prober
from queues import frames
from queues.attempts import Attempt, Finish, Outcome
from tests.api.stack import Replica, Stack, recorded, serving, settings_for

MODELS: dict[str, Any] = {
    "draw": {
        "engine": "image",
        "source": "x",
        "type": "image",
        "limits": {"pixels": 4096, "steps": 10, "images": 2},
    },
    "film": {"engine": "video", "source": "x", "type": "video", "limits": {"duration": 4, "fps": 30}},
    "hear": {"engine": "asr", "source": "x", "type": "asr"},
    "say": {"engine": "speech", "source": "x", "type": "tts", "limits": {"characters": 20}},
    "rank": {"engine": "rerank", "source": "x", "type": "rerank"},
}
PICTURE = b"\x89PNG a picture"
PAINT = {"model": "draw", "prompt": "a house", "seed": 1, "size": "64x64"}


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    made = settings_for(tmp_path / "home", redis_url)
    tree = made.model_dump(mode="json") | {"models": MODELS, "home": tmp_path / "home"}
    return Settings.model_validate(tree)


@pytest.fixture
async def painter(settings: Settings) -> AsyncIterator[Replica]:
    made = Replica(settings, "draw")
    yield made
    await made.close()


async def painted(stack: Stack) -> bytes:
    """What a replica makes of an engine's answer: the picture is an artifact."""
    stored = await stack.context.storage.artifacts.put(PICTURE, "image/png")
    return json.dumps({"created": 1, "data": [{"artifact": stored.sha256, "seed": 1}]}).encode()


async def test_a_picture_is_a_link_that_opens_without_a_key(stack: Stack, painter: Replica) -> None:
    call = asyncio.create_task(stack.post("/v1/images/generations", PAINT))
    await painter.answer_one(await painted(stack))
    answer = (await call).json()
    (entry,) = answer["data"]
    assert entry["seed"] == 1
    assert "artifact" not in entry
    url = entry["url"]
    assert url.startswith(f"{stack.url}/v1/artifacts/")
    opened = await stack.http.get(url)
    assert (opened.status_code, opened.content) == (200, PICTURE)
    assert opened.headers["content-type"] == "image/png"
    changed = await stack.http.get(url.replace("expires=1", "expires=2"))
    assert changed.status_code == 403
    bare = await stack.http.get(url.partition("?")[0])
    assert bare.status_code == 401


async def test_a_link_expires(tmp_path: Path, redis_url: str, template: Path) -> None:
    made = settings_for(tmp_path / "home", redis_url, api={"link_ttl": 0.0})
    settings = Settings.model_validate(
        made.model_dump(mode="json") | {"models": MODELS, "home": tmp_path / "home"}
    )
    async with serving(settings, template) as stack:
        painter = Replica(settings, "draw")
        call = asyncio.create_task(stack.post("/v1/images/generations", PAINT))
        await painter.answer_one(await painted(stack))
        url = (await call).json()["data"][0]["url"]
        await asyncio.sleep(1.1)
        assert (await stack.http.get(url)).status_code == 403
        await painter.close()


async def test_a_picture_as_base64_and_from_the_cache(stack: Stack, painter: Replica) -> None:
    await painter.show()
    call = asyncio.create_task(stack.post("/v1/images/generations", {**PAINT, "response_format": "b64_json"}))
    await painter.answer_one(await painted(stack))
    first = await call
    assert base64.b64decode(first.json()["data"][0]["b64_json"]) == PICTURE
    assert first.headers["x-cache"] == "miss"
    # Nobody runs it now: the answer is there, in the other form.
    again = await stack.post("/v1/images/generations", PAINT)
    assert again.headers["x-cache"] == "hit"
    assert again.json()["data"][0]["url"].startswith("http")
    metrics = (await stack.get("/metrics")).text
    assert 'inferq_cache_lookups_total{model="draw",outcome="hit"} 1.0' in metrics


async def test_no_store_leaves_the_cache_out(stack: Stack, painter: Replica) -> None:
    await painter.show()
    for _ in range(2):
        call = asyncio.create_task(stack.post("/v1/images/generations", PAINT, cache_control="no-store"))
        await painter.answer_one(await painted(stack))
        assert "x-cache" not in (await call).headers


@pytest.mark.parametrize(
    ("path", "body", "param", "said"),
    [
        ("images/generations", {**PAINT, "size": "128x64"}, "size", "8192 pixels"),
        ("images/generations", {**PAINT, "steps": 11}, "steps", "limit is 10"),
        ("images/generations", {**PAINT, "n": 3}, "n", "3 pictures"),
        ("images/generations", {**PAINT, "n": 1, "batch_size": 2}, "batch_size", "give one"),
        ("images/generations", {**PAINT, "size": "big"}, "size", "512x512"),
        (
            "images/generations",
            {**PAINT, "controlnet_units": [{"input_image": 1}]},
            "controlnet_units[0].input_image",
            "string",
        ),
        ("images/edits", {"model": "draw", "prompt": "x"}, "image", "Missing"),
        ("video/generations", {"model": "film", "prompt": "x", "duration": 5}, "duration", "5 s"),
        ("video/generations", {"model": "film", "prompt": "x", "seconds": "soon"}, "seconds", "seconds"),
        ("video/generations", {"model": "film", "prompt": "x", "resolution": "wide"}, "resolution", "720p"),
        ("audio/speech", {"model": "say", "input": "x" * 21}, "input", "21 characters"),
        ("audio/speech", {"model": "say", "input": " "}, "input", "empty"),
        ("audio/speech", {"model": "say", "input": "x", "response_format": "midi"}, "response_format", "mp3"),
        ("audio/transcriptions", {"model": "hear"}, "file", "Missing"),
        ("rerank", {"model": "rank", "query": "x", "documents": []}, "documents", "empty"),
        ("rerank", {"model": "rank", "query": "x", "documents": [1]}, "documents[0]", "string"),
        ("rerank", {"model": "rank", "query": "x", "documents": ["a"], "top_n": 0}, "top_n", "minimum"),
    ],
)
async def test_what_cannot_fit_is_refused_before_it_waits(
    stack: Stack, path: str, body: dict[str, Any], param: str, said: str
) -> None:
    response = await stack.post(f"/v1/{path}", body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == param
    assert said in error["message"]


async def test_a_video_starts_from_one_picture(stack: Stack) -> None:
    film = {"model": "film", "prompt": "a cat", "image_url": "data:,a", "input_reference": "data:,b"}
    response = await stack.post("/v1/videos", film)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == "input_reference"
    assert "'input_reference'" in error["message"]
    assert "'image_url'" in error["message"]


async def test_a_video_is_a_task_in_three_shapes(stack: Stack, settings: Settings) -> None:
    film = {"model": "film", "prompt": "a cat", "duration": 2, "fps": 8, "resolution": "64x64"}
    made = await stack.post("/v1/video/generations", film)
    assert made.status_code == 202
    task = made.json()
    assert (task["status"], task["data"], task["task_id"]) == ("queued", [], task["id"])
    assert made.headers["location"] == f"/v1/jobs/{task['id']}"
    replica = Replica(settings, "film")
    attempt = await replica.claim()
    await replica.attempts.renew([(attempt.id, attempt.token, 0.25)])
    for path, share in ((f"/v1/video/generations/{task['id']}", 0.25), (f"/v1/videos/{task['id']}", 25)):
        seen = (await stack.get(path)).json()
        assert (seen["status"], seen["progress"]) == ("in_progress", share)
    assert (await stack.get(f"/v1/videos/{task['id']}/content")).status_code == 409
    stored = await stack.context.storage.artifacts.put(b"an mp4", "video/mp4")
    done = Finish(outcome=Outcome.SUCCEEDED, artifact=stored.sha256, result_type="video/mp4")
    await replica.attempts.finish(attempt, done, claim_next=False)
    await recorded(settings, stack.context)
    finished = (await stack.get(f"/v1/video/generations/{task['id']}")).json()
    assert finished["status"] == "completed"
    assert (await stack.http.get(finished["data"][0]["url"])).content == b"an mp4"
    video = (await stack.get(f"/v1/videos/{task['id']}")).json()
    assert (video["object"], video["status"], video["progress"], video["seconds"]) == (
        "video",
        "completed",
        100,
        "2",
    )
    content = await stack.get(f"/v1/videos/{task['id']}/content")
    assert (content.content, content.headers["content-type"]) == (b"an mp4", "video/mp4")
    job = (await stack.get(f"/v1/jobs/{task['id']}")).json()
    assert (await stack.http.get(job["artifact_url"])).content == b"an mp4"
    assert [each["id"] for each in (await stack.get("/v1/videos")).json()["data"]] == [task["id"]]
    assert (await stack.get(f"/v1/videos/{task['id']}", "other")).status_code == 404
    await replica.close()


async def test_who_waits_for_a_video_gets_it_with_the_call(stack: Stack, settings: Settings) -> None:
    film = {"model": "film", "prompt": "a cat"}
    replica = Replica(settings, "film")
    call = asyncio.create_task(stack.post("/v1/video/generations", film, prefer="wait=30"))
    attempt = await replica.claim()
    stored = await stack.context.storage.artifacts.put(b"an mp4", "video/mp4")
    done = Finish(outcome=Outcome.SUCCEEDED, artifact=stored.sha256, result_type="video/mp4")
    await replica.attempts.finish(attempt, done, claim_next=False)
    await recorded(settings, stack.context)
    response = await call
    assert (response.status_code, response.json()["status"]) == (200, "completed")
    assert (await stack.http.get(response.json()["data"][0]["url"])).content == b"an mp4"
    late = await stack.post("/v1/video/generations", film, prefer="wait=1")
    assert (late.status_code, late.json()["status"]) == (202, "queued")
    await replica.close()


async def test_who_waits_gets_the_end_although_it_is_recorded_late(stack: Stack, settings: Settings) -> None:
    """Redis knows that a durable job is done before SQL holds it."""
    replica = Replica(settings, "film")
    call = asyncio.create_task(
        stack.post("/v1/video/generations", {"model": "film", "prompt": "a cat"}, prefer="wait=30")
    )
    attempt = await replica.claim()
    stored = await stack.context.storage.artifacts.put(b"an mp4", "video/mp4")
    done = Finish(outcome=Outcome.SUCCEEDED, artifact=stored.sha256, result_type="video/mp4")
    await replica.attempts.finish(attempt, done, claim_next=False)
    await asyncio.sleep(0.5)
    assert not call.done()
    await recorded(settings, stack.context)
    response = await call
    assert (response.status_code, response.json()["status"]) == (200, "completed")
    await replica.close()


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank", "/openai/v1/rerank"])
async def test_rerank_is_where_clients_look_for_it(stack: Stack, settings: Settings, path: str) -> None:
    replica = Replica(settings, "rank")
    body = {"model": "rank", "query": path, "documents": ["a", {"text": "b"}], "top_k": 1}
    call = asyncio.create_task(stack.post(path, body))
    attempt = await replica.answer_one(b'{"results":[]}')
    assert (await call).json() == {"results": []}
    assert (attempt.job.spec.endpoint, json.loads(attempt.job.spec.body)) == ("rerank", body)
    await replica.close()


async def finish_typed(replica: Replica, attempt: Attempt, data: bytes, media_type: str) -> None:
    frame = frames.pack_result(attempt.id, attempt.token, data, media_type)
    await replica.attempts.finish(attempt, Finish(outcome=Outcome.SUCCEEDED, frame=frame), claim_next=False)


async def speak(stack: Stack, **more: Any) -> httpx2.Response:
    return await stack.post("/v1/audio/speech", {"model": "say", "input": "Hello.", **more})


async def test_sound_is_sent_while_it_is_made(stack: Stack, settings: Settings) -> None:
    replica = Replica(settings, "say")
    body = {"model": "say", "input": "Hello.", "response_format": "opus"}

    async def play() -> list[bytes]:
        request = stack.http.stream("POST", "/v1/audio/speech", json=body, headers=stack.headers())
        async with request as response:
            assert (response.status_code, response.headers["content-type"]) == (200, "audio/ogg")
            pieces = []
            async for piece in response.aiter_raw():
                pieces.append(piece)
                heard.set()
            return pieces

    heard = asyncio.Event()
    playing = asyncio.create_task(play())
    attempt = await replica.claim()
    assert attempt.job.spec.stream
    await replica.chunks(attempt, [b"one"])
    async with asyncio.timeout(5):
        await heard.wait()
    replica.writer.chunk(attempt, 1, b"two")
    await replica.writer.drain(attempt)
    await replica.end(attempt, 2)
    assert b"".join(await playing) == b"onetwo"
    await replica.close()


async def test_speech_that_is_made_again_is_one_file(stack: Stack, settings: Settings) -> None:
    """Its caller listened; nobody does now, and the engine knows no field `stream`."""
    replica = Replica(settings, "say")
    body = {"model": "say", "input": "hi", "stream_format": "sse"}
    call = asyncio.create_task(stack.post("/v1/audio/speech", body, X_On_Disconnect="keep"))
    attempt = await replica.claim()
    assert attempt.job.spec.stream
    await replica.fail(attempt)
    await call
    await recorded(settings, stack.context)
    edits = {"body": {"input": "hello", "stream_format": "sse"}}
    answer = await stack.post(f"/v1/jobs/{attempt.id}/requeue", edits)
    assert answer.status_code == 202, answer.text
    spec = (await replica.claim()).job.spec
    assert json.loads(spec.body) == {"model": "say", "input": "hello"}
    assert (spec.id, spec.durable, spec.stream) == (attempt.id, True, False)
    await replica.close()


async def test_a_transcription_that_is_made_again_tells_its_followers(
    stack: Stack, settings: Settings
) -> None:
    replica = Replica(settings, "hear")
    stored = await stack.context.storage.artifacts.put(recording(), "audio/wav")
    body = {"model": "hear", "file": f"artifact:{stored.sha256}"}
    call = asyncio.create_task(stack.post("/v1/audio/transcriptions", body, X_On_Disconnect="keep"))
    attempt = await replica.claim()
    await replica.fail(attempt)
    await call
    await recorded(settings, stack.context)
    answer = await stack.post(f"/v1/jobs/{attempt.id}/requeue", {"body": {**body, "language": "en"}})
    assert answer.status_code == 202, answer.text
    spec = (await replica.claim()).job.spec
    assert (spec.stream, json.loads(spec.body)["stream"]) == (True, True)
    await replica.close()


async def test_sound_that_breaks_off_is_no_whole_answer(stack: Stack, settings: Settings) -> None:
    replica = Replica(settings, "say")
    call = asyncio.create_task(speak(stack))
    attempt = await replica.claim()
    await replica.chunks(attempt, [b"half a"])
    await replica.fail(attempt)
    with pytest.raises(httpx2.RemoteProtocolError):
        await call
    await replica.close()


async def test_a_text_of_another_type_keeps_it(stack: Stack, settings: Settings) -> None:
    """Speech whose engine refuses has the refusal's status; a body of another type arrives as that."""
    replica = Replica(settings, "say")
    call = asyncio.create_task(speak(stack, response_format="wav"))
    await finish_typed(replica, await replica.claim(), b"RIFF\nwave", "audio/wav")
    response = await call
    assert (response.content, response.headers["content-type"]) == (b"RIFF\nwave", "audio/wav")
    refused = asyncio.create_task(speak(stack, voice="nobody"))
    await replica.fail(await replica.claim())
    assert (await refused).status_code == 500
    await replica.close()


def recording() -> bytes:
    """A second of a tone."""
    samples = (round(9000 * math.sin(number / 9)) for number in range(16_000))
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", ""))
        sound.writeframes(struct.pack("<16000h", *samples))
    return file.getvalue()


async def test_a_form_with_a_sound_reaches_the_engine_as_an_artifact(
    stack: Stack, settings: Settings
) -> None:
    replica = Replica(settings, "hear")
    sound = recording()
    form = {"model": "hear", "response_format": "verbose_json", "timestamp_granularities[]": "word"}
    call = asyncio.create_task(
        stack.http.post(
            "/v1/audio/transcriptions",
            data=form,
            files={"file": ("a.wav", sound, "audio/x-wav")},
            headers=stack.headers(),
        )
    )
    attempt = await replica.answer_one(b'{"text":"beep"}')
    assert (await call).json() == {"text": "beep"}
    body = json.loads(attempt.job.spec.body)
    digest = hashlib.sha256(sound).hexdigest()
    assert body == {
        "model": "hear",
        "response_format": "verbose_json",
        "timestamp_granularities": ["word"],
        "file": f"artifact:{digest}",
        "filename": "a.wav",
    }
    assert attempt.job.spec.units == pytest.approx(1.0, abs=0.01)
    await replica.close()


async def test_a_background_transcription_is_a_job_with_partial_texts(
    stack: Stack, settings: Settings
) -> None:
    replica = Replica(settings, "hear")
    answer = await stack.http.post(
        "/v1/audio/transcriptions",
        data={"model": "hear", "background": "true"},
        files={"file": ("a.wav", recording(), "audio/wav")},
        headers=stack.headers(),
    )
    assert answer.status_code == 202, answer.text
    spec = (await replica.claim()).job.spec
    assert (spec.durable, spec.stream, json.loads(spec.body)["stream"]) == (True, True, True)
    await replica.close()


@pytest.mark.parametrize("count", [2, MOST_FILES])
async def test_many_files_of_one_call_are_one_job(stack: Stack, settings: Settings, count: int) -> None:
    replica = Replica(settings, "hear")
    names = [f"{number}.wav" for number in range(count)]
    sounds = [("files", (name, recording(), "audio/wav")) for name in names]
    answer = await stack.http.post(
        "/v1/audio/transcriptions",
        data={"model": "hear", "background": "true"},
        files=sounds,
        headers=stack.headers(),
    )
    assert answer.status_code == 202, answer.text
    body = json.loads((await replica.claim()).job.spec.body)
    assert [each["filename"] for each in body["files"]] == names
    assert all(each["file"].startswith("artifact:") for each in body["files"])
    await replica.close()


@pytest.mark.parametrize(("model", "status"), [("nobody", 404), ("draw", 400), ("", 404), ("hear", 202)])
@pytest.mark.parametrize("last", [True, False])
async def test_a_form_for_no_such_model_leaves_no_artifact(
    stack: Stack, model: str, status: int, last: bool
) -> None:
    sound = ("file", ("a.wav", recording(), "audio/wav"))
    named = ("model", (None, model))
    fields = [sound, named] if last else [named, sound]
    answer = await stack.http.post(
        "/v1/audio/transcriptions",
        files=[*fields, ("background", (None, "true"))],
        headers=stack.headers(),
    )
    assert answer.status_code == status, answer.text
    kept = await stack.context.storage.artifacts.stat(hashlib.sha256(recording()).hexdigest())
    assert (kept is not None) == (status == 202)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (b"no sound at all", "expected a sound"), (recording()[:30], "expected a sound")],
)
async def test_what_is_no_sound_is_refused_at_the_door(stack: Stack, content: bytes, said: str) -> None:
    answer = await stack.http.post(
        "/v1/audio/transcriptions",
        data={"model": "hear"},
        files={"file": ("a.wav", content, "audio/wav")},
        headers=stack.headers(),
    )
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "file"
    assert said in error["message"], error


async def test_files_wait_their_tenants_turn(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []
    probe = Prober.probe

    async def recorded(prober: Prober, path: Path, tenant: str = "") -> Facts:
        turns.append(tenant)
        return await probe(prober, path, tenant)

    monkeypatch.setattr(Prober, "probe", recorded)
    form = await stack.http.post(
        "/v1/audio/transcriptions",
        data={"model": "hear", "background": "true"},
        files={"file": ("a.wav", recording(), "audio/wav")},
        headers=stack.headers("user"),
    )
    sound = "data:audio/wav;base64," + base64.b64encode(recording()[:-100]).decode()
    job = {"model": "hear", "body": {"file": sound}}
    named = await stack.post("/v1/jobs", job, "other")
    assert (form.status_code, named.status_code) == (202, 202), (form.text, named.text)
    assert turns == ["user", "other"]
