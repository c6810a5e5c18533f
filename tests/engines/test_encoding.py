"""JSON on the wire, with the fast library and without it."""

import pytest

from workers.engines import encoding


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' * 100_000, b"{", b"", b"\xff"])
def test_what_is_not_json_is_told_in_one_way(monkeypatch: pytest.MonkeyPatch, fast: bool, raw: bytes) -> None:
    """Nesting that Python will not follow as well: a caller wrote it."""
    if not fast:
        monkeypatch.setattr(encoding, "orjson", None)
    with pytest.raises(ValueError):
        encoding.loads(raw)
