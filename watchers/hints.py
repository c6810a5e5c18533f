"""Hints that something happened in the watched directory, from the operating system by watchdog's thread.

Hints only make things quick. They may be lost, doubled or never come (network file systems, an overflowing queue, no
inotify instance left): the scan finds the same files. It must not read files or decide anything.
"""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from watchdog.events import (
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

log = logging.getLogger(__name__)

MOST = 10_000
"""Names kept between two looks; what is beyond waits for the scan."""
RETRY_EVERY = 60.0
# Opening, reading and removing are left out: this process does them itself.
_WANTED: list[type[FileSystemEvent]] = [FileCreatedEvent, FileClosedEvent, FileMovedEvent]


class Hints(FileSystemEventHandler):
    """Names of files to look at. `wake` is called, from another thread, when there are some."""

    def __init__(self, folder: Path, wake: Callable[[], None]) -> None:
        self._folder = folder
        self._wake = wake
        self._lock = threading.Lock()
        self._names: dict[str, bool] = {}
        self._observer: BaseObserver | None = None
        self._watched: tuple[int, int] | None = None
        self._retry_at = 0.0

    def keep_watching(self, now: float) -> None:
        """Watch the folder; again when it was replaced by another, or when watching could not begin before."""
        found = self._folder.stat()
        place = (found.st_dev, found.st_ino)
        if place == self._watched or now < self._retry_at:
            return
        self.stop()
        try:
            observer = _observer()
            observer.schedule(self, str(self._folder), event_filter=_WANTED)
            observer.start()
        except OSError as error:
            self._retry_at = now + RETRY_EVERY
            log.warning("no events from %s (%s); it is scanned instead", self._folder, error)
            return
        self._observer = observer
        self._watched = place

    def stop(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(1.0)
        self._observer = None
        self._watched = None

    def drain(self) -> dict[str, bool]:
        """The names since the last call, and whether the file was renamed into place."""
        with self._lock:
            names, self._names = self._names, {}
        return names

    def on_any_event(self, event: FileSystemEvent) -> None:
        moved = isinstance(event, FileMovedEvent)
        path = os.fsdecode(event.dest_path if moved else event.src_path)
        if event.is_directory or os.path.dirname(path) != str(self._folder):
            return
        with self._lock:
            if len(self._names) < MOST:
                name = os.path.basename(path)
                self._names[name] = self._names.get(name, False) or moved
        self._wake()


def _observer() -> BaseObserver:
    try:
        # With inotify, a file that comes from outside the folder then counts as moved too, not as created.
        return Observer(generate_full_events=True)  # type: ignore[call-arg]
    except TypeError:
        return Observer()
