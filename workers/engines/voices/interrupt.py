"""Giving up a torch model's run between two of its modules, when nobody waits for it any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from workers.engines.window import Abandoned


class Interrupt:
    """Hooks of one model, which runs on one thread."""

    def __init__(self, models: Iterable[Any]) -> None:
        self._stop: Callable[[], bool] | None = None
        for model in models:
            for module in model.modules():
                module.register_forward_pre_hook(self._look)

    @contextmanager
    def watching(self, stop: Callable[[], bool]) -> Iterator[None]:
        """Inside the block, the model's run raises Abandoned soon after `stop` turns true."""
        self._stop = stop
        try:
            yield
        finally:
            self._stop = None

    def _look(self, module: Any, inputs: Any) -> None:
        if self._stop is not None and self._stop():
            raise Abandoned
