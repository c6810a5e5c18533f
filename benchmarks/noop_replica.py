"""`python -m benchmarks.noop_replica CONFIG HOME MODEL`: the real replica, whose engine answers inside its process.

Slots, doorbells, claims, leases, renewals, endings, task events: all is the product's. Only what would be asked over a
socket, the engine, is a function call here, as a task of plain Celery is.
"""

import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from inferq.config import load_settings
from inferq.scheduling.placement import Place
from workers import replica
from workers.engine_process import EngineProcess, EngineState

ANSWER = b'{"choices": []}'


class _Answer:
    """What `forward` reads of a response."""

    status = 200
    content_type = "application/json"

    async def read(self) -> bytes:
        return ANSWER

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class _Session:
    """What the runner asks instead of an engine's server."""

    closed = False

    def post(self, path: str, **_: Any) -> _Answer:
        return _Answer()


class InProcess(EngineProcess):
    """An engine that is ready at once and has no process."""

    async def run(self) -> None:
        self.session = _Session()  # type: ignore[assignment]
        self._become(EngineState.READY)
        await self._on_ready()
        await self._stopping.wait()
        self._become(EngineState.STOPPED)


def main() -> int:
    config, home, model = sys.argv[1:]
    replica.EngineProcess = InProcess  # type: ignore[misc]
    settings = load_settings(Path(config), home=Path(home), environ={})
    return replica.run(
        settings, Place(name=f"{model}@cpu:0.bench", model=model, device="cpu:0", node="bench")
    )


if __name__ == "__main__":
    sys.exit(main())
