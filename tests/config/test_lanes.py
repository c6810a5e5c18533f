"""How callers name a lane."""

import pytest

from inferq import errors
from inferq.lanes import Lane, parse_lane


@pytest.mark.parametrize(
    ("value", "lane"),
    [
        ("high", Lane.HIGH),
        ("Low", Lane.LOW),
        (0, Lane.LOW),
        ("5", Lane.MEDIUM),
        (9, Lane.HIGH),
        (" 7 ", Lane.HIGH),
    ],
)
def test_names_and_digits_are_lanes(value: object, lane: Lane) -> None:
    assert parse_lane(value) is lane


@pytest.mark.parametrize("value", ["²", "9" * 5000, "10", 10, -1, True, None, "", 1.0, ["high"]])
def test_anything_else_is_refused_in_few_words(value: object) -> None:
    with pytest.raises(errors.InvalidRequest, match="must be high, medium, low") as refused:
        parse_lane(value)
    assert len(refused.value.message) < 120
