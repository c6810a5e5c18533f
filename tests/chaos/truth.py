"""What Redis holds, read in one atomic step: ready sets and leases themselves, beside what the counters say of them.

The only module of the suite that knows the keys (their table is at the head of queues/lua/prelude.lua). Scripts are
atomic, so what they keep in step is in step at every moment, also in the middle of a fault.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import redis

PREFIX = "inferq:"
LASTING = (
    "cache", "desired:", "finish", "learnt:", "mark", "models", "order:", "ctl:", "nodes", "replicas", "apis",
    "leases", "held:", "tenants:", "ready:", "linger:", "bell.", "_kombu", "unacked", "celeryev", "requests",
)  # fmt: skip
"""Beginnings of keys that may live for ever."""

# ARGV prefix -> JSON. Jobs of a ready set are its members without the first character, which names their lane.
_SNAPSHOT = """
local P = ARGV[1]
local out = {models = {}, leases = {}, held = 0, states = {}}
local function state_of(id)
  out.states[id] = redis.call('HGET', P .. 'job:' .. id, 'state') or 'gone'
end
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
for _, model in ipairs(redis.call('SMEMBERS', P .. 'models')) do
  local order, flat = {}, redis.call('HGETALL', P .. 'order:' .. model)
  for i = 1, #flat, 2 do order[flat[i]] = flat[i + 1] end
  local waiting = {}
  for _, key in ipairs(redis.call('KEYS', P .. 'ready:' .. model .. ':*')) do
    waiting[key] = redis.call('ZRANGE', key, 0, -1)
    for _, member in ipairs(waiting[key]) do state_of(string.sub(member, 2)) end
  end
  out.models[#out.models + 1] = {name = model, order = order, waiting = waiting,
    tenants = redis.call('ZRANGE', P .. 'tenants:' .. model, 0, -1)}
  out.held = out.held + redis.call('ZCOUNT', P .. 'held:' .. model, now, '+inf')
end
out.leases = redis.call('ZRANGE', P .. 'leases', 0, -1)
for _, id in ipairs(out.leases) do state_of(id) end
for _, key in ipairs(redis.call('KEYS', P .. 'job:*')) do state_of(string.sub(key, #P + 5)) end
return cjson.encode(out)
"""


@dataclass(slots=True)
class Snapshot:
    """One moment. `waiting` is by model and lane letter; `wrong` says what does not fit together."""

    waiting: dict[str, dict[str, int]] = field(default_factory=dict)
    leases: list[str] = field(default_factory=list)
    held: int = 0
    live: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def is_idle(self) -> bool:
        return not (
            self.leases or self.held or self.live or any(sum(w.values()) for w in self.waiting.values())
        )


def look(client: "redis.Redis") -> Snapshot:
    """Raises redis.RedisError."""
    answer: Any = client.eval(_SNAPSHOT, 0, PREFIX)
    raw: dict[str, Any] = json.loads(answer)
    states: dict[str, str] = dict(raw["states"] or {})
    found = Snapshot(leases=list(raw["leases"] or []), held=raw["held"])
    in_sets: set[str] = set()
    for model in raw["models"] or []:
        in_sets |= _compare(model, found)
    for job in in_sets:
        if states[job] != "queued":
            found.wrong.append(f"job {job} is {states[job]} and stands in a ready set")
    for job in found.leases:
        if states[job] != "running":
            found.wrong.append(f"job {job} is {states[job]} and has a lease")
    for job, state in states.items():
        if state == "queued" and job not in in_sets:
            found.wrong.append(f"job {job} is queued and stands in no ready set")
        if state == "running" and job not in found.leases:
            found.wrong.append(f"job {job} is running without a lease")
        if state in ("queued", "running"):
            found.live.append(job)
    return found


def _compare(model: dict[str, Any], found: Snapshot) -> set[str]:
    """Compare one model's counters with its sets; the jobs that wait."""
    name, order = model["name"], dict(model["order"] or {})
    by_lane = {"high": 0, "medium": 0, "low": 0}
    letters = {lane[0]: lane for lane in by_lane}
    jobs: set[str] = set()
    for members in dict(model["waiting"] or {}).values():
        for member in members:
            by_lane[letters[member[0]]] += 1
            jobs.add(member[1:])
    found.waiting[name] = by_lane
    for lane, count in by_lane.items():
        if int(order.get(f"n:{lane}", 0)) != count:
            found.wrong.append(f"{name}: n:{lane} says {order.get(f'n:{lane}')}, {count} jobs wait")
    if int(order.get("jobs", 0)) != len(jobs):
        found.wrong.append(f"{name}: jobs says {order.get('jobs')}, {len(jobs)} jobs wait")
    if not jobs and int(order.get("bytes", 0)) != 0:
        found.wrong.append(f"{name}: bytes says {order.get('bytes')} and nothing waits")
    queued = {key for key, members in dict(model["waiting"] or {}).items() if members}
    if len(queued) < len(list(model["tenants"] or [])):
        found.wrong.append(f"{name}: {model['tenants']} have a turn, only {sorted(queued)} have jobs")
    return jobs


def without_end(client: "redis.Redis") -> list[str]:
    """Keys that would stay for ever and are none of those that may."""
    lasting = tuple(f"{PREFIX}{name}" for name in LASTING)
    names = [key.decode() for key in client.scan_iter(f"{PREFIX}*", count=1000)]
    return sorted(name for name in names if not name.startswith(lasting) and client.ttl(name) == -1)
