"""The bars: what is measured, and what is good enough. One line of JSON per result."""

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Bar:
    """One promise. `limit` is a floor when `floor` is true, else a ceiling."""

    name: str
    limit: float
    floor: bool
    text: str

    def met(self, value: float) -> bool:
        return value >= self.limit if self.floor else value <= self.limit

    @property
    def words(self) -> str:
        return f"{'>=' if self.floor else '<='} {self.limit:g} {self.text}"


@dataclass(frozen=True)
class Result:
    """One measured bar; `details` go to the file only."""

    name: str
    value: float
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def bar(self) -> Bar:
        return BARS[self.name]

    def as_dict(self) -> dict[str, Any]:
        met = self.bar.met(self.value)
        return {"bench": self.name, "value": round(self.value, 4), "bar": self.bar.words, "pass": met}

    def line(self) -> str:
        return json.dumps(self.as_dict())


_ALL = (
    Bar("idle_memory_mb", 400, False, "MB resident (RSS): api, scheduler, watcher and node, idle"),
    Bar(
        "noop_sync_rate", 300, True, "synchronous requests/s through the whole stack, recorded in the ledger"
    ),
    Bar("noop_enqueue_to_start_p95_ms", 15, False, "ms from queued to started, p95, at half that rate"),
    Bar("stream_ratio_small", 0.70, True, "of vLLM's own tokens/s, 32 streams, overhead-bound model"),
    Bar("ttft_added_ms", 5, False, "ms added to the time to the first token, p50, one stream"),
    Bar("stream_ratio_big", 0.97, True, "of vLLM's own tokens/s, 8 streams, compute-bound model"),
    Bar("cancel_vllm_s", 1, False, "s from a lost client to an idle engine (vLLM)"),
    Bar("cancel_text_s", 1, False, "s from a lost client to an idle engine (text)"),
    Bar("embed_ratio", 0.85, True, "of sentence-transformers' own texts/s"),
    Bar("embed_gain", 0.8, True, "of the library's own gain from batches of 64; 64 clients, one text each"),
    Bar("asr_many_ratio", 1.5, True, "of AutoModel's files/s, many short files"),
    Bar("asr_long_ratio", 1.1, False, "of AutoModel's time, one long file"),
    Bar("asr_texts_differ", 0, False, "texts that differ from AutoModel's"),
    Bar("image_batch_gain", 1.3, True, "times as fast: 8 pictures at once against one by one"),
    Bar("queue_claim_growth", 1.5, False, "times the p50 of a claim among 1,000 jobs, among 1,000,000"),
    Bar("queue_memory_per_job", 1.5, False, "KB of Redis per waiting job, beside its body"),
    Bar("queue_enqueue_rate", 5000, True, "jobs/s into Redis from one process, in batches of 100"),
    Bar("queue_flood_high_wait", 1, False, "slot times until another tenant's high job starts, the worst"),
    Bar("queue_flood_medium_wait", 2, False, "slot times until its medium job starts, the worst"),
    Bar("queue_flood_share", 0.9, True, "of its half of the device, for the tenant that floods"),
    Bar("queue_share_error", 0.05, False, "off 1:3, device seconds of two tenants of weights 1 and 3"),
    Bar("queue_kill_lost", 0, False, "jobs lost under kill -9 of a process each 2 s"),
    Bar("queue_kill_twice", 0, False, "jobs committed twice, or other promises broken, meanwhile"),
    Bar(
        "queue_kill_recovery_p95_s",
        5,
        False,
        "s (the lease + 2) until a killed replica's job runs again, p95",
    ),
    Bar("queue_wipe_unfinished", 0, False, "of 500 durable jobs not done after Redis lost everything"),
    Bar("queue_celery_ratio", 0.8, True, "of plain Celery's no-op tasks/s, submitted and run"),
    Bar("speech_first_share", 0.25, False, "of the whole time until the first sound, ten sentences"),
)
BARS = {bar.name: bar for bar in _ALL}
