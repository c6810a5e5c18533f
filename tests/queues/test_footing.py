"""A scheduler wants a Redis that keeps what it is given, and in production insists on it."""

import asyncio
import logging

import pytest
import redis.asyncio

from inferq import errors
from queues import footing


async def test_a_redis_that_forgets_or_drops_keys_is_named_and_refused_in_production(
    redis_url: str, caplog: pytest.LogCaptureFixture
):
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.config_set("appendonly", "yes")
        await client.config_set("maxmemory-policy", "noeviction")
        await footing.check(client, strict=True)

        await client.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(errors.ConfigError, match="noeviction` instead of allkeys-lru"):
            await footing.check(client, strict=True)

        await client.config_set("appendonly", "no")
        with caplog.at_level(logging.WARNING):
            await footing.check(client, strict=False)
        assert "appendonly yes" in caplog.text


async def test_a_redis_that_is_away_refuses_nobody(caplog: pytest.LogCaptureFixture):
    async with redis.asyncio.Redis(port=1, socket_connect_timeout=1) as client, asyncio.timeout(20):
        await footing.check(client, strict=True)
    assert "not known yet" in caplog.text
