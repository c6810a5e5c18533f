"""The batching window: requests that arrive together run through the model together.

One thread owns the model, or a few where several batches may run at once. After every run a thread takes, from what
arrived meanwhile, the batch that the engine's `pick` chooses (natural batching); only when it was idle does it wait
`wait_s` for company. A result that is an exception fails the order of its item, and no other. Must not know what an
item is.

The life of an item: waiting -> in a batch -> its place in its order's results; or dropped, when the order's
caller left.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from workers.engines.failures import NotReady

LOOK = 512
"""Items, the oldest ones, among which a batch is picked: to sort all that wait for every small batch would cost more
than the batches, and whoever submits waits for the picking."""

Item = TypeVar("Item")
Result = TypeVar("Result")


alone: ContextVar[bool] = ContextVar("alone", default=False)
"""Whether the items of the request at hand run one by one, in batches of one."""


class Abandoned(Exception):
    """Raised by a run that noticed that nobody waits for it any more."""


@dataclass(eq=False)
class Order(Generic[Item, Result]):
    """The items of one request, and where their results go."""

    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[list[Result | None]]
    results: list[Result | None]
    left: int
    step: Callable[[int], None]
    alone: bool = False
    abandoned: bool = False


@dataclass(frozen=True, eq=False)
class Ticket(Generic[Item, Result]):
    """One waiting item."""

    item: Item
    place: int
    order: Order[Item, Result]


@dataclass(frozen=True)
class Batch(Generic[Item, Result]):
    """What runs now."""

    tickets: Sequence[Ticket[Item, Result]] = field(default_factory=tuple)

    @property
    def items(self) -> list[Item]:
        return [ticket.item for ticket in self.tickets]

    def abandoned(self) -> bool:
        """Whether every caller has left; a long run asks this between its steps."""
        return all(ticket.order.abandoned for ticket in self.tickets)


Pick = Callable[[Sequence[Item]], Sequence[int]]


class Window(Generic[Item, Result]):
    """Collects items and runs them in batches, up to `at_once` of them at the same time on as many threads."""

    def __init__(
        self,
        run_batch: Callable[[Batch[Item, Result]], Sequence[Result | Exception]],
        pick: Pick[Item],
        wait_s: float = 0.0,
        at_once: int = 1,
    ) -> None:
        self._run_batch = run_batch
        self._pick = pick
        self._wait_s = wait_s
        self._waiting: list[Ticket[Item, Result]] = []
        self._changed = threading.Condition()
        self._stopping = False
        names = [f"model-{number}" for number in range(at_once)]
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]
        self._running = 0
        self.batches = 0
        self.items = 0

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        until = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    async def submit(
        self, items: Sequence[Item], step: Callable[[int], None] = lambda left: None
    ) -> list[Result]:
        """Run the items, in whatever batches. Leaving (cancellation) drops what has not begun."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Result | None]] = loop.create_future()
        order: Order[Item, Result] = Order(loop, done, [None] * len(items), len(items), step, alone.get())
        with self._changed:
            if self._stopping:
                raise NotReady("The engine is stopping.")
            self._waiting += [Ticket(item, place, order) for place, item in enumerate(items)]
            self._changed.notify_all()
        try:
            return await done  # type: ignore[return-value]
        except asyncio.CancelledError:
            order.abandoned = True
            raise

    def waiting(self) -> int:
        return len(self._waiting)

    def abreast(self) -> int:
        """Batches that run now, and the one that is about to, where something waits and a thread is free."""
        with self._changed:
            return self._running + (bool(self._waiting) and self._running < len(self._threads))

    def _work(self) -> None:
        while True:
            batch = self._next()
            if batch is None:
                return
            self._run(batch)

    def _next(self) -> Batch[Item, Result] | None:
        """The next batch; None when the window was stopped and nothing waits."""
        with self._changed:
            idle = not self._waiting
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            if idle and self._wait_s > 0:
                self._changed.wait_for(lambda: self._full() or self._stopping, timeout=self._wait_s)
            self._waiting = [ticket for ticket in self._waiting if not ticket.order.abandoned]
            if not self._waiting:
                return None if self._stopping else Batch()
            places = self._chosen()
            tickets = [self._waiting[place] for place in places]
            for place in reversed(places):
                del self._waiting[place]
            self._running += 1
            self.batches += 1
            self.items += len(tickets)
            return Batch(tickets)

    def _chosen(self) -> list[int]:
        """Places of the next batch: what is to run alone does so when it is the oldest, and is in no other batch."""
        oldest = self._waiting[:LOOK]
        if oldest[0].order.alone:
            return [0]
        places = [place for place, ticket in enumerate(oldest) if not ticket.order.alone]
        return sorted(places[at] for at in self._pick([oldest[place].item for place in places]))

    def _full(self) -> bool:
        """Whether more waits than one batch takes: then waiting longer gains nothing."""
        oldest = min(len(self._waiting), LOOK)
        return bool(oldest) and len(self._chosen()) < oldest

    def _run(self, batch: Batch[Item, Result]) -> None:
        if not batch.tickets:
            return
        try:
            results = self._run_batch(batch)
            pairs = list(zip(batch.tickets, results, strict=True))
        except Abandoned:
            return
        except Exception as error:  # noqa: BLE001 - whatever it was, it goes to those who wait
            failure = error
            self._post(batch, lambda: fail(batch, failure))
            return
        finally:
            with self._changed:
                self._running -= 1
        self._post(batch, lambda: scatter(pairs))

    def _post(self, batch: Batch[Item, Result], action: Callable[[], None]) -> None:
        batch.tickets[0].order.loop.call_soon_threadsafe(action)


def scatter(pairs: Sequence[tuple[Ticket[Item, Result], Result | Exception]]) -> None:
    """Put results in their places, and wake the orders that are complete. On the event loop."""
    for ticket, result in pairs:
        order = ticket.order
        if isinstance(result, Exception):
            lose(order, result)
            continue
        order.results[ticket.place] = result
        order.left -= 1
        order.step(order.left)
        if order.left == 0 and not order.done.done():
            order.done.set_result(order.results)


def fail(batch: Batch[Item, Result], error: Exception) -> None:
    """Fail every order that had an item in the batch. On the event loop."""
    for ticket in batch.tickets:
        lose(ticket.order, error)


def lose(order: Order[Item, Result], error: Exception) -> None:
    order.abandoned = True  # what still waits of it has nobody to go to
    if not order.done.done():
        order.done.set_exception(error)


def first_fitting(
    key: Callable[[Item], object], cost: Callable[[Sequence[Item]], float], most: int, budget: float
) -> Pick[Item]:
    """A pick in order of arrival: items of the first one's key, up to a number and a cost."""

    def pick(items: Sequence[Item]) -> Sequence[int]:
        wanted = key(items[0])
        chosen = [0]
        for place in range(1, len(items)):
            if len(chosen) == most:
                break
            if key(items[place]) == wanted and cost([*(items[i] for i in chosen), items[place]]) <= budget:
                chosen.append(place)
        return chosen

    return pick


def near_in_length(length: Callable[[Item], int], most: int, budget: int) -> Pick[Item]:
    """A pick for padded batches: the oldest item with those nearest to it in length, within `budget` padded
    units.

    Padding is what a mixed batch wastes, so neighbours in length go together; the oldest is always among
    them, so nobody waits for ever.
    """

    def pick(items: Sequence[Item]) -> Sequence[int]:
        ranked = sorted(range(len(items)), key=lambda place: length(items[place]))
        low = ranked.index(0)
        high = low + 1
        while high - low < most:
            below = length(items[ranked[low - 1]]) if low > 0 else -1
            above = length(items[ranked[high]]) if high < len(ranked) else -1
            longest = length(items[ranked[high - 1]])
            if above >= 0 and (below < 0 or above - longest <= length(items[0]) - below):
                if above * (high - low + 1) > budget:
                    if below < 0 or longest * (high - low + 1) > budget:
                        break
                    low -= 1
                else:
                    high += 1
            elif below >= 0 and longest * (high - low + 1) <= budget:
                low -= 1
            else:
                break
        return ranked[low:high]

    return pick


def among_equals(key: Callable[[Item], object], pick: Pick[Item]) -> Pick[Item]:
    """A pick that offers another one only the items with the key of the oldest."""

    def chosen(items: Sequence[Item]) -> Sequence[int]:
        wanted = key(items[0])
        places = [place for place, item in enumerate(items) if key(item) == wanted]
        return [places[at] for at in pick([items[place] for place in places])]

    return chosen
