"""Artifacts over HTTP: whole, in part, and never as a page."""

import pytest

from api.downloads import byte_range
from tests.api.stack import Stack

BYTES = bytes(range(256)) * 10


async def test_an_artifact_is_downloaded_whole_or_in_part(stack: Stack) -> None:
    artifact = await stack.context.storage.artifacts.put(BYTES, "text/html")
    path = f"/v1/artifacts/{artifact.sha256}"
    whole = await stack.get(path, "readonly")
    assert (whole.status_code, whole.content) == (200, BYTES)
    assert whole.headers["content-length"] == str(len(BYTES))
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-disposition"].startswith("attachment")
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in whole.headers["content-security-policy"]
    part = await stack.get(path, Range="bytes=10-19")
    assert (part.status_code, part.content) == (206, BYTES[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(BYTES)}"
    outside = await stack.get(path, Range=f"bytes={len(BYTES)}-")
    assert outside.status_code == 416
    assert outside.headers["content-range"] == f"bytes */{len(BYTES)}"
    assert outside.json()["error"]["code"] == "range_not_satisfiable"


async def test_names_that_are_none_are_not_found(stack: Stack) -> None:
    for name in ("0" * 64, "nonsense", "..%2f..%2fadmin.key"):
        assert (await stack.get(f"/v1/artifacts/{name}")).status_code == 404


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-9", (0, 10)),
        ("bytes=90-", (90, 100)),
        ("bytes=90-500", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-500", (0, 100)),
        ("bytes=100-", (100, 100)),
        ("bytes=-0", (100, 100)),
        ("bytes=5-3", None),
        ("bytes=0-1,5-6", None),
        ("bytes=-", None),
        ("lines=0-1", None),
    ],
)
def test_one_range_is_understood(header: str, part: tuple[int, int] | None) -> None:
    assert byte_range(header, 100) == part
