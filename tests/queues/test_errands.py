"""Slow work beside a loop: bounded, shared among tenants, and no two of the same at once."""

import asyncio

import pytest

from inferq import errors
from queues.errands import Errands
from tests.queues.builders import eventually


async def test_work_is_bounded_in_all_and_for_each_tenant():
    errands, gate = Errands("a test", most=3, share=2), asyncio.Event()
    started = [
        errands.start(name, tenant, gate.wait()) for name, tenant in (("1", "a"), ("2", "a"), ("3", "a"))
    ]
    assert started == [True, True, False]
    assert (errands.free, errands.busy, errands.crowded) == (1, ["1", "2"], ["a"])
    assert not errands.start("1", "b", gate.wait())
    assert errands.start("4", "b", gate.wait())
    assert not errands.start("5", "c", gate.wait())
    gate.set()
    await eventually(lambda: not errands.busy)
    assert (errands.free, errands.busy, errands.crowded) == (3, [], [])


async def test_what_fails_rests_and_then_makes_room(monkeypatch: pytest.MonkeyPatch):
    """It would be found and begun again at once."""
    errands, rest = Errands("a test", most=2), asyncio.Event()
    monkeypatch.setattr("queues.errands.asyncio.sleep", lambda _: rest.wait())

    gone = asyncio.Event(), asyncio.Event()

    async def fail(failed: asyncio.Event, error: Exception) -> None:
        failed.set()
        raise error

    assert errands.start("1", "a", fail(gone[0], errors.StoreUnavailable("away")))
    assert errands.start("2", "a", fail(gone[1], ValueError("a mistake")))
    await asyncio.wait_for(asyncio.gather(*(failed.wait() for failed in gone)), 5)
    assert errands.busy == ["1", "2"]
    errands.changed.clear()
    rest.set()
    await asyncio.wait_for(errands.changed.wait(), 5)
    await eventually(lambda: errands.free == 2)


async def test_stop_ends_what_goes_on():
    errands = Errands("a test")
    assert errands.start("1", "a", asyncio.Event().wait())
    await errands.stop()
    assert errands.free == 16
