"""Events are cut at their borders, wherever the pieces of a stream are cut."""

import re
import time
from itertools import combinations

import pytest

from inferq.sse import BORDERS, EventCutter

STREAM = b": hello\n\nevent: a\ndata: 1\n\ndata: 2\n\ndata: [DONE]\n"
STREAMS = [
    STREAM,
    STREAM.replace(b"\n", b"\r\n"),
    b": line ends of two kinds\r\n\r\ndata: 1\n\r\ndata: 2\r\n\ndata: 3\n\n",
    b"data: no border at all\r\n",
]


def whole_events(data: bytes) -> bytes:
    ends = [border.end() for border in re.finditer(rb"\r?\n\r?\n", data)]
    return data[: ends[-1]] if ends else b""


@pytest.mark.parametrize("stream", STREAMS)
def test_whole_events_come_at_once_and_nothing_is_lost(stream: bytes) -> None:
    for one, other in combinations(range(len(stream) + 1), 2):
        cutter, found = EventCutter(), b""
        for start, end in ((0, one), (one, other), (other, len(stream))):
            found += cutter.push(stream[start:end])
            assert found == whole_events(stream[:end])
            assert len(cutter) == end - len(found)
        assert found + cutter.rest() == stream


@pytest.mark.parametrize("stream", [*STREAMS, b"data: 1\n\n\n\r\n\r\n\n\n\ndata: 2\n\n\n"])
def test_a_stream_may_come_byte_by_byte(stream: bytes) -> None:
    cutter = EventCutter()
    found = [cutter.push(stream[at : at + 1]) for at in range(len(stream))]
    assert all(events.endswith(BORDERS) for events in found if events)
    assert not any(border in cutter.rest() for border in BORDERS)
    assert b"".join(found) + cutter.rest() == stream


def test_a_long_event_is_not_looked_through_again_for_each_piece() -> None:
    cutter, piece = EventCutter(), b"x" * 1024
    start = time.process_time()
    assert not any(cutter.push(piece) for _ in range(12 * 1024))
    assert len(cutter.push(b"\n\n")) == 12 * 2**20 + 2
    assert time.process_time() - start < 1
