"""The memory of keys: short, bounded, and helpful while the key store is away."""

import asyncio

import pytest

from api import auth
from api.auth import Access, Caller, KeyCache
from inferq import errors
from storage.keys import ApiKey, Role


class Store:
    """Answers as the test says and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.now = 1000.0
        self.away = False
        self.known: dict[str, Role] = {"good": Role.USER}
        self.cache = KeyCache(self.find, clock=lambda: self.now)

    async def find(self, key: str) -> ApiKey | None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise errors.StoreUnavailable
        role = self.known.get(key)
        return role and ApiKey(id="1", name="alice", role=role, tenant="team", weight=2.0, created_at=0.0)


async def test_a_key_is_asked_for_once_in_ten_seconds() -> None:
    store = Store()
    assert await store.cache.caller("good") == Caller("1", "alice", Access.USER, "team", 2.0)
    store.now += auth.FRESH - 0.1
    assert await store.cache.caller("good")
    assert store.asked == 1
    store.now += 0.2
    del store.known["good"]
    assert await store.cache.caller("good") is None


async def test_an_unknown_key_is_remembered_too() -> None:
    store = Store()
    assert await store.cache.caller("bad") is None
    assert await store.cache.caller("bad") is None
    assert store.asked == 1
    store.now += auth.FRESH
    store.known["bad"] = Role.ADMIN
    caller = await store.cache.caller("bad")
    assert caller is not None
    assert caller.access is Access.ADMIN


async def test_calls_at_once_ask_once() -> None:
    store = Store()
    callers = await asyncio.gather(*[store.cache.caller("good") for _ in range(20)])
    assert all(callers)
    assert store.asked == 1


async def test_a_flood_of_unknown_keys_is_bounded_and_spares_good_ones() -> None:
    store = Store()
    await store.cache.caller("good")
    for number in range(auth.MEMORY + 50):
        await store.cache.caller(f"bad-{number}")
    assert len(store.cache._unknown) == auth.MEMORY
    asked = store.asked
    assert await store.cache.caller("good")
    assert store.asked == asked


async def test_a_key_longer_than_any_of_ours_is_not_asked_for() -> None:
    store = Store()
    assert await store.cache.caller("x" * 300) is None
    assert store.asked == 0


async def test_a_good_key_outlives_the_store_for_a_while() -> None:
    store = Store()
    await store.cache.caller("good")
    store.away = True
    store.now += auth.STALE - 1
    assert await store.cache.caller("good")
    store.now += 2
    with pytest.raises(errors.StoreUnavailable):
        await store.cache.caller("good")
    with pytest.raises(errors.StoreUnavailable):
        await store.cache.caller("never seen")


async def test_forgetting_asks_again() -> None:
    store = Store()
    await store.cache.caller("good")
    store.cache.forget()
    await store.cache.caller("good")
    assert store.asked == 2


async def test_text_that_is_not_ascii_is_no_key() -> None:
    assert auth.presented_key({b"authorization": "Bearer schlüssel".encode()}) is not None
    assert auth.presented_key({b"authorization": b"Basic eDp5"}) is None
    assert auth.presented_key({}) is None


@pytest.mark.parametrize(
    ("access", "tenant", "sees"),
    [
        (Access.USER, "team", True),
        (Access.USER, "others", False),
        (Access.READONLY, "others", True),
        (Access.ADMIN, "others", True),
    ],
)
def test_who_sees_whose_jobs(access: Access, tenant: str, sees: bool) -> None:
    assert Caller("1", "alice", access, "team", 1.0).sees(tenant) is sees
