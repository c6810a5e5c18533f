"""The batching window, with a model that the test holds back and lets go."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from workers.engines.window import (
    LOOK,
    Abandoned,
    Batch,
    Window,
    alone,
    among_equals,
    first_fitting,
    near_in_length,
)


class Model:
    """Doubles numbers; every run waits for `gate`, and remembers what it was given."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.began = threading.Semaphore(0)
        self.runs: list[list[int]] = []
        self.open = False

    def run_batch(self, batch: Batch[int, int]) -> Sequence[int]:
        self.runs.append(batch.items)
        self.began.release()
        while not self.open and not self.gate.acquire(timeout=0.01):
            if batch.abandoned():
                raise Abandoned
        if -1 in batch.items:
            raise RuntimeError("minus one")
        return [item * 2 for item in batch.items]


@pytest.fixture
async def model() -> Model:
    return Model()


@pytest.fixture
async def window(model: Model) -> AsyncIterator[Window[int, int]]:
    window = Window(model.run_batch, first_fitting(lambda item: item >= 100, len, 4, 100))
    window.start()
    yield window
    model.open = True
    window.stop()


async def began(model: Model) -> None:
    assert await asyncio.to_thread(model.began.acquire, timeout=5)


async def submitted(window: Window[int, int], *items: int) -> asyncio.Task[list[int]]:
    task = asyncio.create_task(window.submit(items))
    await asyncio.sleep(0)
    return task


async def test_results_come_back_in_order(window: Window[int, int], model: Model) -> None:
    model.open = True
    assert await window.submit(list(range(11))) == [number * 2 for number in range(11)]


async def test_what_arrives_during_a_run_is_the_next_batch(window: Window[int, int], model: Model) -> None:
    tasks = [await submitted(window, 1)]
    await began(model)
    tasks += [await submitted(window, number) for number in (2, 3, 4, 5, 6)]
    model.open = True
    await asyncio.gather(*tasks)
    assert model.runs == [[1], [2, 3, 4, 5], [6]]


async def test_a_batch_is_picked_among_the_oldest(model: Model) -> None:
    """However many wait: what a pick costs must not grow with the queue."""
    looked: list[int] = []
    first = first_fitting(lambda item: 0, len, 4, 100)

    def pick(items: Sequence[int]) -> Sequence[int]:
        looked.append(len(items))
        return first(items)

    window: Window[int, int] = Window(model.run_batch, pick, wait_s=0.001)
    model.open = True
    order = asyncio.ensure_future(window.submit(list(range(3000))))
    await asyncio.sleep(0)
    window.start()
    assert await order == [number * 2 for number in range(3000)]
    assert await window.submit([1, 2, 3]) == [2, 4, 6]
    window.stop()
    assert max(looked) == LOOK


async def test_only_compatible_items_share_a_run(window: Window[int, int], model: Model) -> None:
    tasks = [await submitted(window, 1)]
    await began(model)
    tasks += [await submitted(window, number) for number in (2, 100, 3, 101)]
    model.open = True
    await asyncio.gather(*tasks)
    assert model.runs == [[1], [2, 3], [100, 101]]


async def test_a_caller_who_leaves_is_not_run(window: Window[int, int], model: Model) -> None:
    first = await submitted(window, 1)
    await began(model)
    gone, stays = await submitted(window, 2), await submitted(window, 3)
    gone.cancel()
    await asyncio.sleep(0)
    model.open = True
    assert await stays == [6]
    assert await first == [2]
    assert model.runs == [[1], [3]]


async def test_a_run_that_everybody_left_is_given_up(window: Window[int, int], model: Model) -> None:
    gone = await submitted(window, 1)
    await began(model)
    gone.cancel()
    await asyncio.sleep(0)
    task = await submitted(window, 2)
    await began(model)
    model.gate.release()
    assert await task == [4]


async def test_a_failing_run_fails_its_callers_only(window: Window[int, int], model: Model) -> None:
    model.open = True
    with pytest.raises(RuntimeError, match="minus one"):
        await window.submit([-1])
    assert await window.submit([5]) == [10]


@pytest.fixture
async def pair(model: Model) -> AsyncIterator[Window[int, int]]:
    """A window with two threads; a batch is one item."""
    window = Window(model.run_batch, first_fitting(lambda item: item, len, 1, 1), at_once=2)
    window.start()
    yield window
    model.open = True
    window.stop()


async def test_batches_run_at_once(pair: Window[int, int], model: Model) -> None:
    tasks = [await submitted(pair, number) for number in (1, 2, 3)]
    await began(model)
    await began(model)
    assert sorted(model.runs) == [[1], [2]]
    assert (pair.abreast(), pair.waiting()) == (2, 1)
    model.open = True
    assert await asyncio.gather(*tasks) == [[2], [4], [6]]
    assert pair.batches == pair.items == 3


async def test_a_batch_that_is_about_to_run_counts_as_abreast(model: Model) -> None:
    seen: list[int] = []

    def run_batch(batch: Batch[int, int]) -> Sequence[int]:
        seen.append(window.abreast())
        return model.run_batch(batch)

    window: Window[int, int] = Window(run_batch, first_fitting(lambda item: item, len, 1, 1), at_once=2)
    order = asyncio.ensure_future(window.submit([1, 2]))
    await asyncio.sleep(0)
    window.start()
    model.open = True
    assert await order == [2, 4]
    assert await window.submit([3]) == [6]
    window.stop()
    assert seen[0] == 2
    assert seen[-1] == 1


async def test_who_leaves_gives_up_that_run_alone(pair: Window[int, int], model: Model) -> None:
    gone, stays = await submitted(pair, 1), await submitted(pair, 2)
    await began(model)
    await began(model)
    gone.cancel()
    await asyncio.sleep(0)
    last = await submitted(pair, 3)
    await began(model)
    assert pair.abreast() == 2
    model.open = True
    assert (await stays, await last) == ([4], [6])


async def test_a_result_that_is_an_error_fails_its_caller_only() -> None:
    runs: list[list[int]] = []

    def run_batch(batch: Batch[int, int]) -> Sequence[int | Exception]:
        runs.append(batch.items)
        return [RuntimeError("minus one") if item < 0 else item * 2 for item in batch.items]

    window: Window[int, int] = Window(run_batch, first_fitting(lambda item: 0, len, 3, 3), wait_s=0.5)
    window.start()
    tasks = [await submitted(window, *items) for items in ((1,), (2, -1, 3), (4,))]
    found = await asyncio.gather(*tasks, return_exceptions=True)
    window.stop()
    assert (found[0], repr(found[1]), found[2]) == ([2], "RuntimeError('minus one')", [8])
    assert runs[0] == [1, 2, -1]


def test_near_in_length_takes_the_oldest_and_its_neighbours() -> None:
    pick = near_in_length(len, 3, 1000)
    items = ["x" * length for length in (50, 1, 2, 48, 52, 3)]
    assert {len(items[place]) for place in pick(items)} == {48, 50, 52}


def test_near_in_length_respects_the_padded_budget() -> None:
    pick = near_in_length(len, 100, 20)
    items = ["x" * 5] * 10
    assert len(pick(items)) == 4
    assert pick(["x" * 90]) == [0]


def test_among_equals_offers_only_what_is_like_the_oldest() -> None:
    pick = among_equals(len, near_in_length(int, 2, 1000))
    assert sorted(pick(["50", "9", "48", "10", "100", "49"])) == [0, 5]


async def test_items_that_are_to_run_alone_do(window: Window[int, int], model: Model) -> None:
    """Not beside others', and not beside each other."""
    first = await submitted(window, 1)
    await began(model)
    token = alone.set(True)
    single = await submitted(window, 2, 3)
    alone.reset(token)
    others = await submitted(window, 4, 5)
    model.open = True
    assert await single == [4, 6]
    assert await others == [8, 10]
    assert await first == [2]
    assert model.runs == [[1], [2], [3], [4, 5]]


async def test_others_do_not_take_one_that_is_to_run_alone_along(
    window: Window[int, int], model: Model
) -> None:
    first = await submitted(window, 1)
    await began(model)
    others = await submitted(window, 4, 5)
    token = alone.set(True)
    single = await submitted(window, 2)
    alone.reset(token)
    model.open = True
    await asyncio.gather(first, others, single)
    assert model.runs == [[1], [4, 5], [2]]
