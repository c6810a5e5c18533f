"""One file of a source onto the disk: resumed where it was cut off, bounded, and checked before anybody sees it.

1. What an earlier run left is read for its checksum and continued by a range request, where a checksum will tell in
   the end or where the server shows that it is still the same version (`ETag`, `If-Range`). Else it begins anew.
2. More bytes than promised, or than the disk can spare, end it at once.
3. A connection that breaks is taken up again; after several in a row without a single byte it is the queue's turn.
4. The whole file must have the promised size and checksum. A resumed one that has not is fetched once more from its
   beginning, because what lay there may be at fault.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import unquote, urlsplit

from workers.engines.pulling.hands import Hands
from workers.engines.pulling.hubs import RemoteFile, is_local
from workers.engines.pulling.tally import Tally
from workers.engines.pulling.troubles import CannotPull, Passing, full, told
from workers.engines.pulling.web import Web

CHUNK = 2**20
AHEAD = 8
MOST_BEGINNINGS = 6
"""A server that breaks off and cannot continue would otherwise be read for ever."""
PAUSES = (1.0, 2.0, 5.0, 10.0, 20.0)
_RANGE = re.compile(r"bytes (?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)")


class Checksums:
    """SHA-256, which is always computed, and git's of a blob where only that is known."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        blob = file.blob and file.size is not None
        self._blob = hashlib.sha1(b"blob %d\0" % (file.size or 0), usedforsecurity=False) if blob else None

    def update(self, data: bytes) -> None:
        self.sha256.update(data)
        if self._blob:
            self._blob.update(data)

    def wrong(self) -> str | None:
        """What does not agree; None for a good file, or for one whose checksum nobody knows."""
        digest = self.sha256.hexdigest()
        if self._file.sha256 and digest != self._file.sha256:
            return f"its SHA-256 is {digest}, not {self._file.sha256}"
        if not self._file.sha256 and self._blob and self._blob.hexdigest() != self._file.blob:
            return f"its git blob id is {self._blob.hexdigest()}, not {self._file.blob}"
        return None


class Download:
    """One file on its way to `part`; `mark` remembers beside it which version that is. `pause_s` scales pauses."""

    def __init__(
        self, web: Web, hands: Hands, file: RemoteFile, part: Path, tally: Tally, pause_s: float
    ) -> None:
        self._web = web
        self._hands = hands
        self._file = file
        self._part = part
        self._mark = part.with_suffix(".mark")
        self._tally = tally
        self._pause_s = pause_s
        self._size = file.size
        self._have = 0
        self._etag: str | None = None
        self._sums = Checksums(file)
        self._beginnings = 0

    async def run(self) -> str:
        """Fetch what is missing; the file's SHA-256. Raises CannotPull, Passing."""
        resumed = await self._take_up()
        while True:
            await self._fetch_all()
            wrong = self._sums.wrong()
            if wrong is None:
                await self._hands.do(_sync, self._part)
                return self._sums.sha256.hexdigest()
            self._restart()
            if not resumed:
                raise CannotPull(
                    f"{self._file.path} is not what was promised: {wrong}.", code="checksum_mismatch"
                )
            resumed = False

    async def _take_up(self) -> bool:
        """Read what an earlier run left; False when there is nothing that can be used."""
        try:
            mark = json.loads(self._mark.read_bytes())
            self._etag = mark["etag"]
        except (OSError, ValueError, KeyError, TypeError):
            self._etag = None
        known = self._file.sha256 or self._file.blob or self._etag or is_local(self._file)
        there = self._part.stat().st_size if self._part.exists() else 0
        if not known or not there or (self._size is not None and there > self._size):
            self._restart()
            return False
        await self._hands.do(self._read_part)
        return self._have > 0

    def _read_part(self) -> None:
        with self._part.open("rb") as file:
            while data := file.read(CHUNK):
                self._hands.check()
                self._sums.update(data)
                self._have += len(data)
                self._report()

    def _restart(self) -> None:
        self._part.unlink(missing_ok=True)
        self._mark.unlink(missing_ok=True)
        self._have, self._etag, self._sums = 0, None, Checksums(self._file)
        self._size = self._file.size
        self._report()

    def _report(self) -> None:
        self._tally.note(self._file.path, self._have)

    async def _fetch_all(self) -> None:
        """Until the size is reached. Counts the breaks in a row that brought nothing."""
        breaks = 0
        while self._size is None or self._have < self._size or not self._part.exists():
            before = self._have
            try:
                await self._fetch()
                if self._size is None:
                    return
                if self._have < self._size:
                    raise Passing(f"{self._file.path} ended after {self._have} of {self._size} bytes")
            except Passing as passing:
                breaks = 0 if self._have > before else breaks + 1
                if breaks > len(PAUSES) or self._beginnings > MOST_BEGINNINGS:
                    raise
                pause = PAUSES[max(breaks - 1, 0)] * self._pause_s
                await asyncio.sleep(max(pause, passing.after))

    async def _fetch(self) -> None:
        """One request, and what it brings."""
        async with self._opened() as chunks:
            with await self._hands.do(self._open, "ab" if self._have else "wb") as file:
                async for chunk in chunks:
                    self._admit(len(chunk))
                    await self._hands.do(self._write, file, chunk)
                    self._tally.fetched += len(chunk)
                    self._report()

    def _open(self, mode: str) -> BinaryIO:
        try:
            # Without a buffer, so that nothing is written when it is closed.
            return cast("BinaryIO", self._part.open(mode, buffering=0))
        except OSError as error:
            raise told(error, f"Writing {self._file.path}") from error

    def _write(self, file: BinaryIO, chunk: bytes) -> None:
        try:
            written = file.write(chunk)
        except OSError as error:
            raise told(error, f"Writing {self._file.path}") from error
        if written != len(chunk):
            raise full(f"writing {self._file.path} was not possible")
        self._sums.update(chunk)
        self._have += len(chunk)

    def _admit(self, more: int) -> None:
        """Raise CannotPull for a body that goes on too long, and before the disk is full."""
        whole = self._have + more
        if self._size is not None and whole > self._size:
            size = self._size
            self._restart()
            raise CannotPull(
                f"{self._file.path} has more than the {size} bytes that were promised.", code="size_mismatch"
            )
        self._tally.admit(self._file.path, more)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """The rest of the file, or all of it where it cannot be continued."""
        if is_local(self._file):
            yield _local(self._hands, self._file.url, self._have)
            return
        async with self._web.get(self._file.url, self._wanted()) as response:
            begins = self._beginning(response.status, response.headers)
            if begins != self._have:
                self._restart()
            # Also of those that brought nothing: what was sent before a connection broke may not arrive.
            self._beginnings += begins == 0
            if begins is None:
                raise Passing(f"{self._file.path} cannot be continued; it begins anew")
            self._promised(response.status, response.headers)
            async with _read_ahead(response.content.iter_chunked(CHUNK)) as chunks:
                yield chunks

    def _wanted(self) -> dict[str, str]:
        if not self._have:
            return {}
        condition = {"If-Range": self._etag} if self._etag and not self._etag.startswith("W/") else {}
        return {"Range": f"bytes={self._have}-", **condition}

    def _beginning(self, status: int, headers: Mapping[str, str]) -> int | None:
        """Where the body begins; None when it cannot be joined to what is there."""
        if status == 200:
            return 0
        place = _RANGE.fullmatch(headers.get("Content-Range", ""))
        same = not self._etag or headers.get("ETag") in (None, self._etag)
        if status != 206 or place is None or not place[1] or int(place[1]) != self._have or not same:
            return None
        total = int(place[3]) if place[3] != "*" else self._size
        return None if self._size is not None and total != self._size else self._have

    def _promised(self, status: int, headers: Mapping[str, str]) -> None:
        """The size and the version that the server tells, kept for the next run."""
        place = _RANGE.fullmatch(headers.get("Content-Range", ""))
        told_size = place[3] if place else headers.get("Content-Length", "")
        if self._size is None and told_size.isdigit():
            self._size = int(told_size)
        if status == 200 and told_size.isdigit() and int(told_size) != (self._file.size or int(told_size)):
            raise CannotPull(
                f"{self._file.path} has {told_size} bytes, and {self._file.size} were promised.",
                code="size_mismatch",
            )
        if status == 200 and headers.get("ETag") != self._etag:
            self._etag = headers.get("ETag")
            strong = self._etag and not self._etag.startswith("W/")
            try:
                self._mark.write_text(json.dumps({"etag": self._etag if strong else None}))
            except OSError as error:
                raise told(error, f"Writing {self._file.path}") from error


@asynccontextmanager
async def _read_ahead(chunks: AsyncIterator[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    """The same chunks, read from now on: what aiohttp still holds when the connection breaks is lost."""
    queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(AHEAD)

    async def pump() -> None:
        end = None
        try:
            async for chunk in chunks:
                await queue.put(chunk)
        except Exception as error:  # noqa: BLE001  # raised where the chunks are read
            end = error
        await queue.put(end)

    async def arrived() -> AsyncIterator[bytes]:
        while isinstance(item := await queue.get(), bytes):
            yield item
        if item is not None:
            raise item

    pumping = asyncio.create_task(pump())
    try:
        yield arrived()
    finally:
        pumping.cancel()
        await asyncio.wait({pumping})


async def _local(hands: Hands, url: str, begins: int) -> AsyncIterator[bytes]:
    path = unquote(urlsplit(url).path)
    try:
        with open(path, "rb") as file:  # noqa: ASYNC230  # read in a thread, below
            file.seek(begins)
            while data := await hands.do(file.read, CHUNK):
                yield data
    except OSError as error:
        raise CannotPull(f"{path} cannot be read: {error.strerror}.", code="source_not_found") from error


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sha256_of(path: Path, file: RemoteFile, hands: Hands) -> tuple[str, bool]:
    """The SHA-256 of a file that is there, and whether it is the wanted one. In a thread; raises Left."""
    sums = Checksums(file)
    with path.open("rb") as handle:
        while data := handle.read(CHUNK):
            hands.check()
            sums.update(data)
    return sums.sha256.hexdigest(), sums.wrong() is None
