"""Server-sent events cut out of the pieces in which a stream arrives. Reads no event."""

BORDERS = (b"\n\n", b"\n\r\n")
"""What ends an event: an empty line. Whether the line before it ends with a carriage return makes no difference."""


class EventCutter:
    """Keeps what has come of an event until it is whole. Each byte is looked at once, however long an event gets."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def __len__(self) -> int:
        """Bytes of the event that is not whole yet."""
        return len(self._rest)

    def push(self, piece: bytes) -> bytes:
        """The events that are whole with this piece; empty where none is."""
        # A border may have begun in the last two bytes.
        start = max(0, len(self._rest) - 2)
        self._rest += piece
        found = ((self._rest.rfind(border, start), border) for border in BORDERS)
        end = max((place + len(border) for place, border in found if place >= 0), default=0)
        events = bytes(self._rest[:end])
        del self._rest[:end]
        return events

    def rest(self) -> bytes:
        """What came after the last border."""
        return bytes(self._rest)
