"""Turns: who gets a place when tenants want more of them than there are."""

import asyncio
from collections.abc import Callable

import pytest

from inferq.media.turns import Turns


class Scene:
    """Callers of one `Turns`: who was served, in order. Each holds his place until he is told to `end`."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.served: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}

    async def come(self, *names: str) -> None:
        """Callers such as `a1`, whose first letter is their tenant."""
        for name in names:
            self._ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._hold(name))
        await settle()

    async def end(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
            await settle()

    async def _hold(self, name: str) -> None:
        async with self.turns.turn(name[0]):
            self.served.append(name)
            await self._ends[name].wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def scene() -> Callable[..., Scene]:
    return lambda places, share=None: Scene(Turns(places, share))


async def test_places_are_given_at_once_and_no_more_than_there_are(scene):
    two = scene(2)
    await two.come("a1", "b1", "c1")
    assert two.served == ["a1", "b1"]
    await two.end("a1")
    assert two.served == ["a1", "b1", "c1"]


async def test_tenants_take_turns_and_each_ones_own_keep_their_order(scene):
    one = scene(1)
    await one.come("a1", "a2", "a3", "a4", "b1", "b2", "c1")
    for _ in range(7):
        await one.end(one.served[-1])
    assert one.served == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]


async def test_nobody_holds_more_than_his_share(scene):
    four = scene(4, share=2)
    await four.come("a1", "a2", "a3", "b1")
    assert four.served == ["a1", "a2", "b1"]
    await four.end("b1")
    assert four.served == ["a1", "a2", "b1"]
    await four.end("a2")
    assert four.served[-1] == "a3"


async def test_who_is_passed_over_keeps_his_turn(scene):
    two = scene(2, share=1)
    await two.come("a1", "b1", "a2", "c1", "c2")
    await two.end("b1")
    assert two.served == ["a1", "b1", "c1"]
    await two.end("a1")
    assert two.served[-1] == "a2"


async def test_who_leaves_while_he_waits_takes_no_place(scene):
    one = scene(1)
    await one.come("a1", "a2", "b1", "b2")
    for name in ("a2", "b1"):
        one.tasks[name].cancel()
    await settle()
    await one.end("a1")
    assert one.served == ["a1", "b2"]
    await one.end("b2")
    await one.come("a3")
    assert one.served[-1] == "a3"


async def test_who_leaves_does_not_cost_his_tenant_the_turn(scene):
    one = scene(1)
    await one.come("a1", "a2", "a3", "b1")
    one.tasks["a2"].cancel()
    await settle()
    await one.end("a1")
    assert one.served == ["a1", "a3"]


async def test_who_leaves_as_he_is_served_gives_the_place_back():
    turns = Turns(1)
    await turns._take("a")
    waiting = [asyncio.create_task(turns._take(tenant)) for tenant in "ab"]
    await settle()
    turns._give_back("a")
    waiting[0].cancel()
    await settle()
    assert waiting[0].cancelled()
    assert waiting[1].done()
    assert turns._held == {"b": 1}


async def test_an_error_gives_the_place_back_and_nothing_is_left_over():
    turns = Turns(1)
    with pytest.raises(ZeroDivisionError):
        async with turns.turn("a"):
            raise ZeroDivisionError
    async with turns.turn("b"):
        pass
    assert (turns._free, turns._held, turns._waiting) == (1, {}, {})
