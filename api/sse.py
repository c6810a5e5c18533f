"""Server-sent events on the wire: headers, comments, frames. Knows no job."""

from starlette.types import Message

KEEP_ALIVE = 10.0
"""Seconds of silence after which a comment shows that the connection lives."""

_TYPE = (b"content-type", b"text/event-stream; charset=utf-8")
HEADERS = (
    _TYPE,
    (b"cache-control", b"no-cache"),
    # Proxies of the nginx kind would otherwise collect the stream before passing it on.
    (b"x-accel-buffering", b"no"),
)


def start(*extra: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": 200, "headers": [*HEADERS, *extra]}


def is_events(start: Message) -> bool:
    """Whether these are the headers of a stream of events."""
    return _TYPE in start["headers"]


def sound_start(media_type: str, *extra: tuple[bytes, bytes]) -> Message:
    """The head of bytes that are sent while they are made."""
    headers = [(b"content-type", media_type.encode()), *HEADERS[1:], *extra]
    return {"type": "http.response.start", "status": 200, "headers": headers}


def part(data: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def comment(text: str) -> bytes:
    return f": {text}\n\n".encode()


def event(event_id: str, name: str, data: bytes) -> bytes:
    """One event; each line of `data` becomes a data line, which readers join with newlines again."""
    lines = b"".join(b"data: " + line + b"\n" for line in data.splitlines() or [b""])
    return b"id: %b\nevent: %b\n%b\n" % (event_id.encode(), name.encode(), lines)
