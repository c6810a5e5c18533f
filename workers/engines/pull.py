"""The engine without a model: `/v1/models/pull` brings a model into the folder of models, `--model`.

It runs in the gateway's environment, as one of inferq's own models; `hub:` of the configuration becomes its options:
`huggingface`, `modelscope` (base addresses), `allow_hosts`, `connections`, `max_bytes`, `reserve_bytes`, and `pythons`
(environments that may know a hub's address). `stall_s` (how long a server may say nothing, default 60) and `pause_s`
(scales the pauses of retries, default 1) are for tests.

A pull that is cancelled, or whose engine is killed, leaves what has arrived; the next one of that name goes on there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferq import sources
from inferq.sources import Kind, Source
from workers.engines.asgi import Call, EngineApp, Handler, Reply
from workers.engines.base import Engine, main
from workers.engines.failures import BadRequest
from workers.engines.fields import Fields, wrong_type
from workers.engines.launch import Launch, Options
from workers.engines.pulling.download import PAUSES, Download
from workers.engines.pulling.hands import Hands
from workers.engines.pulling.hubs import HUBS, Listing, RemoteFile, base_of, choose, list_files
from workers.engines.pulling.shelf import Shelf, sweep
from workers.engines.pulling.tally import Bounds, Tally
from workers.engines.pulling.troubles import CannotPull, HubUnreachable, Passing, full
from workers.engines.pulling.web import Web
from workers.engines.runs import Run

log = logging.getLogger("inferq.engine")


@dataclass(frozen=True)
class Wanted:
    """One request."""

    source: Source
    name: str
    revision: str | None
    files: list[str] | None
    include: list[str] | None
    exclude: list[str] | None
    sha256: str | dict[str, str] | None


class PullEngine(Engine):
    """Brings models here."""

    def __init__(self, launch: Launch, app: EngineApp) -> None:
        super().__init__(launch, app)
        options = Options(launch.options)
        self.bases = {
            Kind.HUGGINGFACE: options.take("huggingface", ""),
            Kind.MODELSCOPE: options.take("modelscope", ""),
        }
        self.allowed = [str(host) for host in options.take("allow_hosts", [])]
        self.pythons = [str(python) for python in options.take("pythons", [])]
        self.connections = options.take("connections", 4)
        self.stall_s = options.take("stall_s", 60.0)
        self.bounds = Bounds(
            options.take("max_bytes", 2 * 2**40),
            options.take("reserve_bytes", 512 * 2**20),
            options.take("pause_s", 1.0),
        )
        options.close()
        self.models = Path(launch.model)

    def load(self) -> None:
        sweep(self.models)

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        return {("POST", "/v1/models/pull"): self.pull}

    async def pull(self, call: Call) -> Reply:
        fields = Fields(call.json())
        self.app.check_model(fields)
        wanted = read_wanted(fields)
        fields.close()
        try:
            return Reply.json({"model": self.app.served_name, **await self._pull(wanted, call.run)})
        except Passing as passing:
            hub = HUBS.get(wanted.source.kind)
            raise HubUnreachable(f"{passing}." + (f" {hub.advice}." if hub else "")) from passing

    async def _pull(self, wanted: Wanted, run: Run) -> dict[str, Any]:
        run.report(0, stage="listing")
        base, hubs = "", dict[str, Mapping[str, str]]()
        if wanted.source.kind in HUBS:
            hub = HUBS[wanted.source.kind]
            base = await base_of(hub, self.bases[hub.kind], self.pythons)
            hubs[base] = hub.credentials()
        web = Web(hubs, self.allowed, connections=self.connections, stall_s=self.stall_s)
        hands = Hands(self.connections)
        try:
            listing = choose(
                await self._listed(web, wanted, base),
                files=wanted.files,
                include=wanted.include,
                exclude=wanted.exclude,
                sha256=wanted.sha256,
            )
            shelf = Shelf(self.models, wanted.name, hands)
            async with shelf.locked(lambda: run.report(0, stage="waiting for another pull of this name")):
                return await self._fill(web, hands, wanted, listing, shelf, run)
        finally:
            hands.close()
            await web.close()

    async def _listed(self, web: Web, wanted: Wanted, base: str) -> Listing:
        """The listing, asked for again while the hub has passing troubles."""
        for pause in (*PAUSES[:3], None):
            try:
                return await list_files(web, wanted.source, base, wanted.revision)
            except Passing as passing:
                if pause is None:
                    raise
                await asyncio.sleep(max(pause * self.bounds.pause_s, passing.after))
        raise AssertionError

    async def _fill(
        self, web: Web, hands: Hands, wanted: Wanted, listing: Listing, shelf: Shelf, run: Run
    ) -> dict[str, Any]:
        """Everything that needs the name to itself."""
        run.report(0, stage="checking")
        digests = await hands.do(shelf.standing, listing.files, str(wanted.source))
        unchanged = len(digests) == len(listing.files)
        sizes = [file.size for file in listing.files]
        known = [size for size in sizes if size is not None]
        total = sum(known) if len(known) == len(sizes) else None
        tally = Tally(self.bounds, shelf.parts, lambda there: run.report(there, total, "downloading"))
        if not unchanged:
            self._admit(listing, shelf, digests)
            try:
                await self._gather(web, hands, listing, shelf, digests, tally)
                run.report(tally.sum, total, "placing")
                await hands.do(shelf.publish, listing.files, digests, str(wanted.source), listing.revision)
            except CannotPull as error:
                if error.error_code in ("disk_full", "too_large"):
                    shelf.drop()
                raise
        size = sum((shelf.target / file.path).stat().st_size for file in listing.files)
        return {
            "object": "model.pull",
            "name": wanted.name,
            "folder": f"models/{wanted.name}",
            "source": str(wanted.source),
            "revision": listing.revision,
            "files": len(listing.files),
            "bytes": size,
            "fetched_bytes": tally.fetched,
            "unchanged": unchanged,
        }

    def _admit(self, listing: Listing, shelf: Shelf, digests: Mapping[str, str]) -> None:
        """Refuse what cannot fit before a byte of it is fetched."""
        shelf.begin()
        size = sum(file.size or 0 for file in listing.files)
        if size > self.bounds.max_bytes:
            shelf.drop()
            raise CannotPull(f"The model has {size} bytes, more than hub.max_bytes allows.", code="too_large")
        missing = sum(
            (file.size or 0) - _there(shelf, file) for file in listing.files if file.path not in digests
        )
        free = shutil.disk_usage(shelf.staging).free
        if missing > 0 and missing + self.bounds.reserve_bytes > free:
            shelf.drop()
            raise full(f"{missing} bytes are missing, and {free} are free")

    async def _gather(
        self, web: Web, hands: Hands, listing: Listing, shelf: Shelf, digests: dict[str, str], tally: Tally
    ) -> None:
        """Fetch several files at once; the first that fails ends the others."""
        room = asyncio.Semaphore(self.connections)

        async def one(file: RemoteFile) -> None:
            async with room:
                digests[file.path] = await self._file(web, hands, file, shelf, digests.get(file.path), tally)

        tasks = [asyncio.create_task(one(file)) for file in listing.files]
        try:
            for ended in asyncio.as_completed(tasks):
                await ended
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _file(
        self, web: Web, hands: Hands, file: RemoteFile, shelf: Shelf, standing: str | None, tally: Tally
    ) -> str:
        """The SHA-256 of a file that is whole now."""
        part, done = shelf.part(file), shelf.done(file)
        if standing:
            await hands.do(shelf.keep, file)
            tally.note(file.path, done.stat().st_size)
            return standing
        with contextlib.suppress(FileNotFoundError):
            done.rename(
                part
            )  # It was checked, but nobody noted its checksum: it is read once more, not fetched.
        digest = await Download(web, hands, file, part, tally, self.bounds.pause_s).run()
        part.rename(done)
        return digest


def _there(shelf: Shelf, file: RemoteFile) -> int:
    """Bytes of a file that an earlier run has fetched."""
    places = (shelf.part(file), shelf.done(file))
    return max((place.stat().st_size for place in places if place.exists()), default=0)


def read_wanted(fields: Fields) -> Wanted:
    """The request. Raises BadRequest."""
    text = fields.text("source")
    if not text:
        raise BadRequest("'source' is required.", param="source")
    source = _legal("source", lambda: sources.parse_source(text))
    name, revision = fields.text("name"), fields.text("revision")
    if revision is not None:
        _legal("revision", lambda: sources.check_revision(revision))
    return Wanted(
        source,
        _legal("name", lambda: sources.check_name(name) if name is not None else source.name),
        revision,
        _texts(fields, "files"),
        _texts(fields, "include"),
        _texts(fields, "exclude"),
        _digests(fields),
    )


def _digests(fields: Fields) -> str | dict[str, str] | None:
    given = fields.raw("sha256")
    if given is None or isinstance(given, str):
        return given and _legal("sha256", lambda: sources.check_digest(given))
    if not isinstance(given, dict):
        raise wrong_type("sha256", "a string or an object")
    return {
        path: _legal("sha256", lambda each=each: sources.check_digest(each)) for path, each in given.items()
    }


def _texts(fields: Fields, name: str) -> list[str] | None:
    given = fields.listing(name)
    if given is not None and not all(isinstance(item, str) for item in given):
        raise wrong_type(name, "an array of strings")
    return given


def _legal(param: str, read: Any) -> Any:
    try:
        return read()
    except ValueError as error:
        raise BadRequest(f"Invalid '{param}': {error}.", param=param) from error


if __name__ == "__main__":
    main(PullEngine, "workers.engines.pull")
