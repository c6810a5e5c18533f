"""Sends webhook messages: a loop of the leading scheduler. What is sent, and signed how, is for `inferq.webhooks`.

At least once: a try is noted before it is made, and one of which nothing more is heard is made again. Every message has
a task of its own; a host has a quarter of them at most, and a tenant half, so that no host that is slow or dead and
no tenant that has many holds up the others.
"""

import asyncio
import logging
import math
import random
import ssl
import time
from collections import Counter
from collections.abc import Iterable
from http import HTTPStatus

import aiohttp

from inferq import errors, process, webhooks
from inferq.config import Settings
from inferq.config.sections import Media
from inferq.media.fetch import Fetcher, reason
from inferq.media.reference import remote_url
from storage.deliveries import Deliveries, Delivery

log = logging.getLogger(__name__)

PAUSES = (5.0, 30.0, 120.0, 600.0, 3600.0, 3 * 3600.0, 8 * 3600.0, 12 * 3600.0)
"""Seconds between the tries of a message, about a day together; each is up to a fifth longer or shorter."""
LOST_AFTER = 60.0
"""Seconds beyond the time-out after which a try counts as lost, with its process."""


class Deliverer:
    """`tls` is for receivers whose certificate a public authority did not sign."""

    def __init__(self, store: Deliveries, settings: Settings, tls: ssl.SSLContext | None = None):
        rules = settings.webhooks
        self._store = store
        self._settings = settings
        self._timeout = rules.timeout
        self._most = rules.max_concurrent
        self._per_host = math.ceil(rules.max_concurrent / 4)
        self._per_tenant = math.ceil(rules.max_concurrent / 2)
        media = Media(fetch="public", allow_http=rules.allow_http, allow_hosts=list(rules.allow_hosts))
        self._fetcher = Fetcher(media, tls)
        self._going: dict[asyncio.Task[None], Delivery] = {}
        self.changed = asyncio.Event()
        """Set when a message was begun, or a try has ended: there may be another one to begin."""

    async def run_once(self) -> int:
        """Begin messages that are due and have room; how many. To be called again once `changed` is set.

        Raises StoreUnavailable, ConfigError.
        """
        secret = webhooks.load_secret(self._settings)
        free, begun = self._most - len(self._going), 0
        if not free:
            return 0
        due = await self._store.due(free, hosts=self._crowded_hosts(), tenants=self._crowded_tenants())
        for delivery in due:
            # Those found before it may have taken what room there was.
            if delivery.host in self._crowded_hosts() or delivery.tenant in self._crowded_tenants():
                continue
            mine = await self._store.begin(delivery, self._timeout + LOST_AFTER)
            if mine is not None:
                self._start(mine, secret)
                begun += 1
        return begun

    def _start(self, delivery: Delivery, secret: str) -> None:
        task = asyncio.create_task(self._deliver(delivery, secret))
        self._going[task] = delivery

        def forget(_: object) -> None:
            del self._going[task]
            self.changed.set()

        task.add_done_callback(forget)
        self.changed.set()

    def _crowded_hosts(self) -> list[str]:
        return _reached((delivery.host for delivery in self._going.values()), self._per_host)

    def _crowded_tenants(self) -> list[str]:
        return _reached((delivery.tenant for delivery in self._going.values()), self._per_tenant)

    async def stop(self) -> None:
        """Break off what is under way; it is sent again by the next leader."""
        await process.end_tasks(self._going)

    async def _deliver(self, delivery: Delivery, secret: str) -> None:
        try:
            status, why = await self._post(delivery, secret)
            await self._note(delivery, status, why)
        except errors.StoreUnavailable as error:
            log.warning("webhook %s: %s", delivery.id, error.message)
        except Exception:
            log.exception("webhook %s failed", delivery.id)

    async def _note(self, delivery: Delivery, status: int, why: str) -> None:
        """1. Arrived. 2. Nobody wants it any more (410). 3. Tried often enough. 4. Later again."""
        if HTTPStatus(200) <= status < HTTPStatus(300):
            await self._store.arrived(delivery)
            return
        next_at: float | None = None
        if status == HTTPStatus.GONE:
            why = "given up: the receiver answered 410 Gone"
        elif delivery.attempts > len(PAUSES):
            why = f"given up after {delivery.attempts} tries: {why}"
        else:
            next_at = time.time() + PAUSES[delivery.attempts - 1] * random.uniform(0.8, 1.2)
        log.info("webhook %s of %s: %s", delivery.id, delivery.subject, why)
        await self._store.failed(delivery, why, next_at)

    async def _post(self, delivery: Delivery, secret: str) -> tuple[int, str]:
        """The receiver's status, 0 without one, and what is wrong with it. What it says beyond that is not read."""
        signed = webhooks.headers(secret, delivery.id, int(time.time()), delivery.payload)
        headers = {**signed, "Content-Type": "application/json", "User-Agent": "inferq"}
        try:
            url = remote_url(delivery.url, "webhook")
            async with (
                asyncio.timeout(self._timeout),
                self._fetcher.session(url, "webhook") as session,
                session.post(url, data=delivery.payload, headers=headers, allow_redirects=False) as response,
            ):
                return response.status, f"the receiver answered with status {response.status}"
        except errors.InferqError as error:
            return 0, error.message
        except TimeoutError:
            return 0, f"the receiver gave no answer within {self._timeout:g} s"
        except (aiohttp.ClientError, ssl.SSLError) as error:
            return 0, reason(error)
        except OSError:
            return 0, "the receiver could not be reached"


def _reached(names: Iterable[str], most: int) -> list[str]:
    """Those that are there as often as they may be."""
    return [name for name, count in Counter(names).items() if count >= most]
