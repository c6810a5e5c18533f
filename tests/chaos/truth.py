"""What Redis holds, read in one atomic step: ready sets and leases themselves, beside what the counters say of them.

The only module of the suite that knows the keys (their table is at the head of queues/lua/prelude.lua). Scripts are
atomic, so what they keep in step is in step at every moment, also in the middle of a fault.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import redis

PREFIX = "inferq:"
LASTING = (
    "apis", "bell.", "cache", "celeryev", "control", "ctl:", "desired:", "expiry", "finish", "held:", "hooks", "later",
    "layout", "learnt:", "leases", "linger:", "models", "nodes", "order:", "promised:", "ready:", "replicas",
    "requests", "reroute", "spent", "tenants:", "unacked", "_kombu",
)  # fmt: skip
"""Beginnings of keys that may live for ever."""

# ARGV prefix -> JSON
_SNAPSHOT = """
local P = ARGV[1]
local out = {models = {}, leases = {}, later = {}, held = 0, jobs = {}}
local function note(id)
  local job = redis.call('HMGET', P .. 'job:' .. id, 'state', 'model', 'lane', 'tenant')
  out.jobs[id] = {state = job[1] or 'gone', model = job[2] or '', lane = job[3] or '', tenant = job[4] or ''}
end
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
for _, model in ipairs(redis.call('SMEMBERS', P .. 'models')) do
  local order, flat = {}, redis.call('HGETALL', P .. 'order:' .. model)
  for i = 1, #flat, 2 do order[flat[i]] = flat[i + 1] end
  local waiting = {}
  for _, key in ipairs(redis.call('KEYS', P .. 'ready:' .. model .. ':*')) do
    waiting[string.sub(key, #P + #model + 8)] = redis.call('ZRANGE', key, 0, -1)
    for _, id in ipairs(redis.call('ZRANGE', key, 0, -1)) do note(id) end
  end
  out.models[#out.models + 1] = {name = model, order = order, waiting = waiting,
    tenants = redis.call('ZRANGE', P .. 'tenants:' .. model, 0, -1)}
  out.held = out.held + redis.call('ZCOUNT', P .. 'held:' .. model, now, '+inf')
end
for _, name in ipairs({'leases', 'later'}) do
  out[name] = redis.call('ZRANGE', P .. name, 0, -1)
  for _, id in ipairs(out[name]) do note(id) end
end
for _, key in ipairs(redis.call('KEYS', P .. 'job:*')) do note(string.sub(key, #P + 5)) end
return cjson.encode(out)
"""
_PLACES = {"queued": "a ready set", "running": "the leases", "scheduled": "the jobs for later"}
_LANES = {"h": "high", "m": "medium", "l": "low"}


@dataclass(slots=True)
class Snapshot:
    """One moment. `waiting` is by model and lane; `wrong` says what does not fit together."""

    waiting: dict[str, dict[str, int]] = field(default_factory=dict)
    live: list[str] = field(default_factory=list)
    held: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def is_idle(self) -> bool:
        return not (self.live or self.held or any(sum(lanes.values()) for lanes in self.waiting.values()))


def look(client: "redis.Redis") -> Snapshot:
    """Raises redis.RedisError."""
    answer: Any = client.eval(_SNAPSHOT, 0, PREFIX)
    raw: dict[str, Any] = json.loads(answer)
    jobs: dict[str, dict[str, str]] = dict(raw["jobs"] or {})
    found = Snapshot(held=raw["held"])
    places = {"queued": set(), "running": set(raw["leases"] or []), "scheduled": set(raw["later"] or [])}
    for model in raw["models"] or []:
        running = [jobs[job] for job in places["running"] if jobs[job]["model"] == model["name"]]
        places["queued"] |= _compare(model, running, found)
    for state, ids in places.items():
        for job in ids:
            if jobs[job]["state"] != state:
                found.wrong.append(f"job {job} is {jobs[job]['state']} and stands in {_PLACES[state]}")
    for job, facts in jobs.items():
        if facts["state"] in places:
            found.live.append(job)
            if job not in places[facts["state"]]:
                found.wrong.append(f"job {job} is {facts['state']} and not in {_PLACES[facts['state']]}")
    return found


def _compare(model: dict[str, Any], running: list[dict[str, str]], found: Snapshot) -> set[str]:
    """Compare one model's counters with its sets; the jobs that wait."""
    name, order, true = model["name"], dict(model["order"] or {}), Counter[str]()
    jobs: set[str] = set()
    for key, ids in dict(model["waiting"] or {}).items():
        tenant, _, letter = key.rpartition(":")
        true.update({f"n:{_LANES[letter]}": len(ids), f"q:{tenant}": len(ids), "jobs": len(ids)})
        jobs.update(ids)
    for job in running:
        true.update(("run", f"rl:{job['lane']}", f"rt:{job['tenant']}"))
    told = {
        key: int(value) for key, value in order.items() if key in ("jobs", "run") or key[:2] in ("n:", "q:")
    }
    told |= {key: int(value) for key, value in order.items() if key.startswith(("rl:", "rt:"))}
    for key in sorted(told.keys() | true.keys()):
        if told.get(key, 0) != true[key]:
            found.wrong.append(f"{name}: {key} says {told.get(key, 0)}, and it is {true[key]}")
    if not jobs and int(order.get("bytes", 0)) != 0:
        found.wrong.append(f"{name}: bytes says {order['bytes']} and nothing waits")
    idle = set(model["tenants"] or []) - {key[2:] for key in true if key.startswith("q:") and true[key]}
    if idle:
        found.wrong.append(f"{name}: {', '.join(sorted(idle))} have a turn and no jobs")
    found.waiting[name] = {lane: true[f"n:{lane}"] for lane in _LANES.values()}
    return jobs


def without_end(client: "redis.Redis") -> list[str]:
    """Keys that would stay for ever and are none of those that may."""
    lasting = tuple(f"{PREFIX}{name}" for name in LASTING)
    names = [key.decode() for key in client.scan_iter(f"{PREFIX}*", count=1000)]
    return sorted(name for name in names if not name.startswith(lasting) and client.ttl(name) == -1)
