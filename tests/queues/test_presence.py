"""The records by which processes see each other."""

import orjson

from queues.presence import NodeInfo, Presence, ReplicaInfo
from tests.queues.builders import PREFIX, bench


async def test_records_of_a_newer_version_are_read(redis_url: str):
    """While hosts are upgraded one by one, some of them write fields that the others do not know."""
    replica = ReplicaInfo(
        name="r", model="m", device="cpu:0", node="n", pid=1, state="ready", since=1.0, slots=2
    )
    node = NodeInfo(name="n", pid=1, seen_at=1.0)
    async with bench(redis_url) as b:
        presence = Presence(b.redis, PREFIX)
        await presence.show_replica(replica)
        await presence.show_node(node)
        for key in ("replica:r", "node:n"):
            record = orjson.loads(await b.redis.get(PREFIX + key))
            await b.redis.set(PREFIX + key, orjson.dumps({**record, "invented_later": 1}))
        assert await presence.replicas() == [replica]
        assert await presence.nodes() == [node]
