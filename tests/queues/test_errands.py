"""Slow work beside a loop: bounded, shared among tenants, and no two of the same at once."""

import asyncio

from inferq import errors
from queues.errands import Errands


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
    await errands.finish()
    assert (errands.free, errands.busy, errands.crowded) == (3, [], [])


async def test_what_fails_makes_room():
    errands = Errands("a test", most=2)

    async def fail(error: Exception) -> None:
        raise error

    assert errands.start("1", "a", fail(errors.StoreUnavailable("away")))
    assert errands.start("2", "a", fail(ValueError("a mistake")))
    await errands.finish()
    assert errands.free == 2


async def test_stop_ends_what_goes_on():
    errands = Errands("a test")
    assert errands.start("1", "a", asyncio.Event().wait())
    await errands.stop()
    assert errands.free == 16
