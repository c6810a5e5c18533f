"""What is kept of an engine's words about itself."""

import orjson
import pytest

from workers.facts import MOST, facts_of


def test_facts_are_kept_and_passing_counts_are_not() -> None:
    health = {
        "status": "ready",
        "pid": 7,
        "memory_bytes": 1,
        "runs": [],
        "batches": 3,
        "context": 9,
        "voices": ["a"],
    }
    assert facts_of(orjson.dumps(health)) == {"context": 9, "voices": ["a"]}


@pytest.mark.parametrize("said", [b"", b"OK", b"[]", b"7", b"[" * 100_000, b'{"a": NaN}'])
def test_an_engine_that_says_nothing_has_no_facts(said: bytes) -> None:
    assert facts_of(said) == {}


def test_of_too_many_the_smallest_are_kept() -> None:
    facts = facts_of(
        orjson.dumps({"long": "x" * 5000, **{f"k{i}": "y" * 100 for i in range(100)}, "dimensions": 64})
    )
    assert facts["dimensions"] == 64
    assert "long" not in facts
    assert 30 < len(facts) < 60
    assert len(orjson.dumps(facts)) <= MOST
