"""How much is measured: enough for a verdict, or just enough to see that all of it works."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """`rounds` are alternations of a comparison; values are medians over them."""

    rounds: int
    warm_seconds: float
    noop_seconds: float
    tokens: int
    pairs: int
    texts: int
    singles: int
    cancels: int
    sounds: int
    minutes: float
    most_waiting: int
    enqueued: int
    flood: int
    trials: int
    share_seconds: float
    chaos_jobs: int
    wiped: int
    plain: int


FULL = Scale(
    rounds=5,
    warm_seconds=5,
    noop_seconds=10,
    tokens=256,
    pairs=100,
    texts=384,
    singles=768,
    cancels=5,
    sounds=96,
    minutes=5,
    most_waiting=1_000_000,
    enqueued=10_000,
    flood=10_000,
    trials=20,
    share_seconds=20,
    chaos_jobs=1000,
    wiped=500,
    plain=5000,
)
QUICK = Scale(
    rounds=2,
    warm_seconds=2,
    noop_seconds=4,
    tokens=64,
    pairs=15,
    texts=96,
    singles=256,
    cancels=2,
    sounds=24,
    minutes=0.5,
    most_waiting=20_000,
    enqueued=1000,
    flood=2000,
    trials=3,
    share_seconds=5,
    chaos_jobs=60,
    wiped=50,
    plain=500,
)
