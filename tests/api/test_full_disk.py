"""An artifact store that is really full: what cannot be taken is refused for now, the rest goes on."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.stack import CHAT, Stack
from tests.disk import Disk, small_disk
from tests.media import files

URL = "data:image/png;base64," + base64.b64encode(files.picture("PNG")).decode()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "home" / "artifacts") as disk:
        yield disk


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/jobs"])
async def test_a_file_that_has_no_room_is_refused_for_now(disk: Disk, stack: Stack, path: str) -> None:
    disk.fill()
    parts = [{"type": "image_url", "image_url": {"url": URL}}]
    request = {**CHAT, "messages": [{"role": "user", "content": parts}]}
    refused = await stack.post(path, request)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
    assert "the disk is full" in refused.json()["error"]["message"]
    assert int(refused.headers["Retry-After"]) >= 1
    await stack.submit()
    disk.free()
    assert (await stack.post("/v1/jobs", request)).status_code == 202
