"""Clocks that jump, for one process at a time: libfaketime between it and the system, and a file that says how far.

Only the time of day moves; monotonic clocks go on as they do on a real machine whose date is set.
"""

from pathlib import Path

_PLACES = (
    "/usr/lib/*/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
)
LATE = 1.0
"""Seconds until a process looks into its file again."""


def find_library() -> Path | None:
    """Debian's package `libfaketime` has it."""
    found = [file for place in _PLACES for file in Path("/").glob(place.lstrip("/"))]
    return found[0] if found else None


class Clocks:
    """One file per process; all agree with the machine at first."""

    def __init__(self, folder: Path, library: Path) -> None:
        self._folder = folder
        self._library = library
        folder.mkdir()

    def variables(self, name: str) -> list[str]:
        """The environment of a process whose clock can jump."""
        self.set(name, self._offset(name))
        return [
            f"LD_PRELOAD={self._library}",
            f"FAKETIME_TIMESTAMP_FILE={self._file(name)}",
            f"FAKETIME_CACHE_DURATION={LATE:.0f}",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        ]

    def set(self, name: str, seconds: float) -> None:
        """Put the clock so far ahead, or back. Felt within `LATE`."""
        partial = self._file(name).with_suffix(".partial")
        partial.write_text(f"{seconds:+.1f}\n")
        partial.replace(self._file(name))

    def _offset(self, name: str) -> float:
        return float(self._file(name).read_text()) if self._file(name).exists() else 0.0

    def _file(self, name: str) -> Path:
        return self._folder / name
