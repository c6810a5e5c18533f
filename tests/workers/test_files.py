"""Pictures of an answer on their way to the store."""

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
