"""A network that can be broken: TCP ports that lead to the unix socket of Redis, one port per group of processes.

Started as a process: ``python -m tests.chaos.proxy SOCKET CONTROL name ...`` prints one port per name. A line
``{"link": name, "mode": mode}`` to the control socket changes a link:

- ``pass``       everything goes through.
- ``blackhole``  nothing goes through either way and nobody is told; what was sent arrives when the link passes again.
- ``deaf``       requests arrive, answers are lost: half open.
- ``cut``        each connection dies at its next answer, which is lost, its request carried out; new ones pass.
"""

import asyncio
import json
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

CHUNK = 65536
MODES = ("pass", "blackhole", "deaf", "cut")


class Link:
    """All connections of one group."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._passing = asyncio.Event()
        self._passing.set()
        self._deaf = False
        self._doomed: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.StreamWriter] = set()

    def set(self, mode: str) -> None:
        was_deaf, self._deaf = self._deaf, mode == "deaf"
        if mode == "blackhole":
            self._passing.clear()
        else:
            self._passing.set()
        if mode == "cut":
            self._doomed |= self._open
        if was_deaf and not self._deaf:  # half of their answers is missing: they are of no use any more
            for writer in self._open:
                writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._passing.wait()
        try:
            from_redis, to_redis = await asyncio.open_unix_connection(self._target)
        except OSError:
            writer.transport.abort()
            return
        self._open.add(writer)
        pumps = [
            asyncio.create_task(self._up(reader, to_redis)),
            asyncio.create_task(self._down(from_redis, writer)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        self._open.discard(writer)
        self._doomed.discard(writer)
        for end in (writer, to_redis):
            end.transport.abort()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._passing.wait()
                writer.write(data)
                await writer.drain()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._passing.wait()
                if writer in self._doomed:
                    return
                if not self._deaf:
                    writer.write(data)
                    await writer.drain()


def order(control: Path, link: str, mode: str) -> None:
    """Change a link of a proxy that runs; returns when it is changed."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(control))
        connection.sendall(json.dumps({"link": link, "mode": mode}).encode() + b"\n")
        assert connection.recv(8) == b"ok\n"


async def main(target: str, control: str, names: list[str]) -> None:
    links = {name: Link(target) for name in names}
    servers = [await asyncio.start_server(link.serve, "127.0.0.1", 0) for link in links.values()]

    async def obey(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        order = json.loads(await reader.readline())
        links[order["link"]].set(order["mode"])
        writer.write(b"ok\n")
        await writer.drain()
        writer.close()

    partial = f"{control}.partial"
    await asyncio.start_unix_server(obey, partial)
    ports = [str(server.sockets[0].getsockname()[1]) for server in servers]
    print(" ".join(ports), flush=True)
    os.rename(partial, control)  # whoever sees it may read the ports
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
