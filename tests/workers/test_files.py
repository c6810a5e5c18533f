"""The files of a job on their way to an engine, and the pictures of its answer on their way to the store."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from inferq.engine import MediaForm
from inferq.job import JobSpec
from storage.artifacts import ArtifactStore
from workers.files import Files


def picture(form: str) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (2, 2)).save(target, form)
    return target.getvalue()


@pytest.mark.parametrize(
    ("content", "named", "media"),
    [
        (picture("GIF"), {}, "image/gif"),
        (picture("JPEG"), {}, "image/jpeg"),
        (picture("WEBP"), {"output_format": "png"}, "image/webp"),
        (picture("PNG"), {"output_format": "jpeg"}, "image/png"),
        (b"something else", {"output_format": "webp"}, "image/webp"),
        (b"RIFFxxxxWAVE", {}, "image/png"),
        (b"", {}, "image/png"),
    ],
    ids=["gif", "jpeg", "webp", "png", "unknown", "sound", "empty"],
)
async def test_a_picture_is_stored_as_what_it_is(
    tmp_path: Path, content: bytes, named: dict[str, Any], media: str
) -> None:
    """Whatever the answer calls it: a workflow or an upstream may write what nobody asked for."""
    store = await ArtifactStore.open("artifacts", tmp_path)
    files = Files(store, MediaForm.PATH)
    spec = JobSpec(id="x", model="m", endpoint="images/generations", body=b"{}")
    answer = {"data": [{"b64_json": base64.b64encode(content).decode()}], **named}
    kept = json.loads(await files.kept(spec, json.dumps(answer).encode()))
    stored = await store.stat(kept["data"][0]["artifact"])
    assert stored is not None
    assert (stored.media_type, stored.size) == (media, len(content))


async def test_an_engine_without_our_files_gets_the_bytes_in_openais_forms(tmp_path: Path) -> None:
    """A picture as a URL, a sound as plain base64: `input_audio` holds no URL."""
    store = await ArtifactStore.open("artifacts", tmp_path)
    seen, heard = await store.put(b"a picture", "image/png"), await store.put(b"a sound", "audio/wav")
    parts = [
        {"type": "image_url", "image_url": {"url": f"artifact:{seen.sha256}"}},
        {"type": "input_audio", "input_audio": {"data": f"artifact:{heard.sha256}", "format": "wav"}},
    ]
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": parts}]}).encode()
    body = body.replace(b'": "', b'":"')
    spec = JobSpec(id="x", model="m", endpoint="chat/completions", body=body)
    async with Files(store, MediaForm.DATA).handed(spec) as handed:
        picture_part, sound_part = json.loads(handed)["messages"][0]["content"]
    assert (
        picture_part["image_url"]["url"] == "data:image/png;base64," + base64.b64encode(b"a picture").decode()
    )
    assert sound_part["input_audio"] == {"data": base64.b64encode(b"a sound").decode(), "format": "wav"}
