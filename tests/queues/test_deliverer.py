"""Sending webhook messages: real receivers on loopback, a real database, OpenAI's own client as the judge."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import openai
import pytest

from inferq import webhooks
from inferq.config import Settings
from inferq.job import JobState
from queues import deliverer
from queues.deliverer import Deliverer
from queues.scheduler import Scheduler
from storage import migrate, open_storage
from storage.deliveries import Deliveries, Delivery, DeliveryState
from storage.ledger import Ledger
from tests.queues.builders import eventually
from tests.storage.builders import event, spec

URL = "sqlite:///inferq.db"


@dataclass
class Receiver:
    url: str
    seen: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@asynccontextmanager
async def receiving(
    answer: str = "200 OK", *extra: str, until: asyncio.Event | None = None
) -> AsyncIterator[Receiver]:
    """A server that answers every POST alike, at once or when it is told; at all addresses of the loopback."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        receiver.seen.append((headers, body))
        if until is not None:
            await until.wait()
        writer.write("\r\n".join([f"HTTP/1.1 {answer}", "Content-Length: 0", *extra, "", ""]).encode())
        writer.close()

    async with await asyncio.start_server(serve, "0.0.0.0", 0) as server:
        receiver = Receiver(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook")
        yield receiver


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    await migrate.upgrade(URL, tmp_path)
    opened = await Ledger.open(URL, tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
def store(ledger: Ledger) -> Deliveries:
    return Deliveries(ledger.database)


def settings_of(home: Path, **rules: object) -> Settings:
    rules = {"allow_http": True, "allow_hosts": ["127.0.0.0/8"], **rules}
    return Settings.model_validate({"home": home, "webhooks": rules})


@asynccontextmanager
async def sending(store: Deliveries, settings: Settings) -> AsyncIterator[Deliverer]:
    made = Deliverer(store, settings)
    yield made
    await made.stop()


async def sent(store: Deliveries, url: str, subject: str = "test", tenant: str = "t") -> Delivery:
    message = webhooks.message(webhooks.TEST, 0.0, {"n": 1})
    return await store.add(url, webhooks.TEST, subject, tenant, message)


async def settled(store: Deliveries, delivery: Delivery) -> Delivery:
    """The delivery, when a try of it has ended."""

    async def ended() -> Delivery | None:
        found = await store.get(delivery.id)
        return found if found.last_error or found.delivered_at else None

    return await eventually(ended)


async def test_openais_client_accepts_what_arrives(ledger: Ledger, store: Deliveries, tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    async with receiving() as receiver, sending(store, settings) as deliverer:
        asked = spec(webhook=receiver.url, metadata={"order": "7"})
        await ledger.accept(asked)
        await ledger.record(
            [event(asked, result=b'{"text":"Gr\xc3\xbc\xc3\x9fe"}')], stream="s", old="0-0", new="1-0"
        )
        assert await deliverer.run_once() == 1
        await eventually(lambda: receiver.seen)
        headers, body = receiver.seen[0]
        secret = webhooks.load_secret(settings)
        client = openai.OpenAI(api_key="none", webhook_secret=secret)
        told = client.webhooks.unwrap(body, headers)
        assert told.type == "job.succeeded"
        assert told.data.id == asked.id
        assert (told.data.metadata, told.data.result) == ({"order": "7"}, {"text": "Grüße"})
        other = "whsec_" + "A" * 43 + "="
        with pytest.raises(openai.InvalidWebhookSignatureError):
            client.webhooks.unwrap(body, headers, secret=other)
        with pytest.raises(openai.InvalidWebhookSignatureError):
            client.webhooks.unwrap(body.replace(b"7", b"8"), headers)
        page = await store.page(subject=asked.id)
        done = await settled(store, page.deliveries[0])
        assert (done.state, done.id) == (DeliveryState.DELIVERED, headers["webhook-id"])
        assert await deliverer.run_once() == 0


@pytest.mark.parametrize("answer", ["500 Internal Server Error", "404 Not Found", "302 Found"])
async def test_what_is_not_taken_is_sent_again(store: Deliveries, tmp_path: Path, answer: str) -> None:
    async with (
        receiving(answer, "Location: http://127.0.0.1:1/") as receiver,
        sending(store, settings_of(tmp_path)) as deliverer,
    ):
        made = await sent(store, receiver.url)
        await deliverer.run_once()
        failed = await settled(store, made)
        assert failed.state is DeliveryState.WAITING
        assert failed.last_error == f"the receiver answered with status {answer[:3]}"
        assert 3.9 < failed.next_at - time.time() < 6.1
        await store.retry(made.id)
        await deliverer.run_once()
        await eventually(lambda: len(receiver.seen) == 2)
        first, second = (headers["webhook-id"] for headers, _ in receiver.seen)
        assert first == second == made.id


async def test_gone_is_taken_at_its_word(store: Deliveries, tmp_path: Path) -> None:
    async with receiving("410 Gone") as receiver, sending(store, settings_of(tmp_path)) as deliverer:
        made = await sent(store, receiver.url)
        await deliverer.run_once()
        assert (await settled(store, made)).state is DeliveryState.GIVEN_UP


async def test_it_is_given_up_in_the_end(
    store: Deliveries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliverer, "PAUSES", (0.0, 0.0))
    async with receiving("503 Busy") as receiver, sending(store, settings_of(tmp_path)) as sender:
        made = await sent(store, receiver.url)

        async def given_up() -> Delivery | None:
            await sender.run_once()
            found = await store.get(made.id)
            return found if found.state is DeliveryState.GIVEN_UP else None

        found = await eventually(given_up)
        assert found.last_error.startswith("given up after 3 tries: the receiver answered with status 503")
        assert len(receiver.seen) == 3


async def test_a_slow_receiver_holds_up_no_other(store: Deliveries, tmp_path: Path) -> None:
    never = asyncio.Event()
    settings = settings_of(tmp_path, max_concurrent=4, allow_hosts=["127.0.0.1", "localhost"])
    async with receiving(until=never) as slow, receiving() as quick, sending(store, settings) as deliverer:
        for number in range(20):
            await sent(store, slow.url, str(number))
        for _ in range(5):
            await deliverer.run_once()
        made = await sent(store, quick.url.replace("127.0.0.1", "localhost"))

        async def arrived() -> bool:
            await deliverer.run_once()
            return (await store.get(made.id)).delivered_at is not None

        await eventually(arrived)
        assert len(slow.seen) == 1
        never.set()


async def test_a_tenant_with_many_messages_holds_up_no_other(store: Deliveries, tmp_path: Path) -> None:
    never = asyncio.Event()
    settings = settings_of(tmp_path, max_concurrent=4, allow_hosts=["127.0.0.0/8", "localhost"])
    async with receiving(until=never) as slow, receiving() as quick, sending(store, settings) as deliverer:
        for host in range(1, 9):
            await sent(store, slow.url.replace("127.0.0.1", f"127.0.0.{host}"))
        for _ in range(9):
            await deliverer.run_once()
        made = await sent(store, quick.url.replace("127.0.0.1", "localhost"), tenant="u")

        async def arrived() -> bool:
            await deliverer.run_once()
            return (await store.get(made.id)).delivered_at is not None

        await eventually(arrived)
        assert len(slow.seen) == 2
        never.set()


async def test_a_receiver_that_says_nothing_is_left(store: Deliveries, tmp_path: Path) -> None:
    never = asyncio.Event()
    async with (
        receiving(until=never) as slow,
        sending(store, settings_of(tmp_path, timeout=0.2)) as deliverer,
    ):
        made = await sent(store, slow.url)
        await deliverer.run_once()
        assert (await settled(store, made)).last_error == "the receiver gave no answer within 0.2 s"
        never.set()


@pytest.mark.parametrize(
    ("url", "rules", "why"),
    [
        ("http://127.0.0.1:1/", {"allow_hosts": []}, "ports 80 and 443"),
        ("http://127.0.0.1/", {"allow_hosts": []}, "public address"),
        ("http://169.254.169.254/latest/meta-data", {"allow_hosts": []}, "public address"),
        ("http://localhost/", {"allow_hosts": []}, "public address"),
        ("http://127.0.0.1:1/", {"allow_http": False, "allow_hosts": []}, "https"),
        ("http://127.0.0.1:1/", {}, "could not be reached"),
    ],
)
async def test_nobody_is_lent_our_place(
    store: Deliveries, tmp_path: Path, url: str, rules: dict[str, object], why: str
) -> None:
    async with sending(store, settings_of(tmp_path, **rules)) as deliverer:
        made = await sent(store, url)
        await deliverer.run_once()
        found = await settled(store, made)
        assert why in found.last_error
        assert found.state is DeliveryState.WAITING


async def test_a_try_that_was_broken_off_is_made_again(
    store: Deliveries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler is killed while a receiver answers."""
    monkeypatch.setattr(deliverer, "LOST_AFTER", -14.99)
    never = asyncio.Event()
    async with receiving(until=never) as receiver:
        made = await sent(store, receiver.url)
        async with sending(store, settings_of(tmp_path)) as first:
            await first.run_once()
            await eventually(lambda: receiver.seen)
        never.set()
        async with sending(store, settings_of(tmp_path)) as second:

            async def arrived() -> bool:
                await second.run_once()
                return (await store.get(made.id)).delivered_at is not None

            await eventually(arrived)
        assert [headers["webhook-id"] for headers, _ in receiver.seen] == [made.id] * 2


async def test_the_scheduler_sends_them(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than go to one host at a time, and no look for more of them but when a try has ended."""
    monkeypatch.setattr("queues.scheduler.BEGIN_EVERY", 3600.0)
    home = {"home": tmp_path, "queue": {"redis_url": redis_url}}
    rules = {"allow_http": True, "allow_hosts": ["127.0.0.0/8"]}
    settings = Settings.model_validate({**home, "webhooks": rules})
    await migrate.upgrade(settings.storage.database_url, tmp_path)
    storage = await open_storage(settings)
    stopping = asyncio.Event()
    async with receiving() as receiver:
        made = [await sent(storage.deliveries, receiver.url) for _ in range(20)]
        running = asyncio.create_task(Scheduler(settings, storage).run(stopping))
        for each in made:
            assert (await settled(storage.deliveries, each)).state is DeliveryState.DELIVERED
        assert len(receiver.seen) == 20
        stopping.set()
        await asyncio.wait_for(running, 20)
    await storage.close()


def test_every_state_has_its_event() -> None:
    assert {
        webhooks.event_of(state) for state in JobState if state not in ("scheduled", "queued", "running")
    } == {
        "job.succeeded",
        "job.failed",
        "job.cancelled",
        "job.expired",
    }
