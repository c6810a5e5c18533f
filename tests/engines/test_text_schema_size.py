"""How large a schema may be, and that one within the limits is read fast."""

import json
import time
from typing import Any

import pytest

from tests.engines.conftest import chat
from tests.engines.process import EngineProcess
from tests.engines.test_text_limits import slowest_health
from workers.engines.failures import BadRequest, UnsupportedParameter
from workers.engines.textgen.schema import MOST_BYTES, MOST_VALUES, value_of

CHAT = "/v1/chat/completions"


def alternative(values: list[Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"kind": {"enum": values}}, "required": ["kind"]}


def one_of(alternatives: int, values: int) -> dict[str, Any]:
    """A schema whose alternatives are told apart by the values of one property."""
    several = [alternative([f"{group}-{place}" for place in range(values)]) for group in range(alternatives)]
    return {"type": "object", "properties": {"x": {"oneOf": several}}, "required": ["x"]}


def seconds(schema: dict[str, Any]) -> float:
    start = time.process_time()
    value_of(schema, "schema")
    return time.process_time() - start


def test_many_alternatives_are_compared_once_each() -> None:
    """240 of them are 28 680 pairs: listing the values of both for each took seconds, and minutes without a bound."""
    assert seconds(one_of(240, 19)) < 0.5


def test_what_is_referred_to_again_is_not_listed_again() -> None:
    kinds = {name: alternative([f"{name}{place}" for place in range(2400)]) for name in "ab"}
    either = {"oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]}
    places = {f"at{place}": either for place in range(160)}
    assert seconds({"$defs": kinds, "type": "object", "properties": places}) < 0.3


def test_what_is_said_again_and_again_counts_once() -> None:
    repeated = alternative(["x"] * 2000) | {"required": ["kind"] * 20_000}
    schema = {"oneOf": [repeated, alternative(["y"])]}
    assert seconds(schema) < 1
    assert len(value_of({"type": ["null"] * 100_000}, "schema").node.ways) == 1


@pytest.mark.parametrize(
    "schema",
    [
        one_of(240, 2000),
        {"enum": list(range(MOST_VALUES + 1))},
        {"anyOf": [{"enum": list(range(MOST_VALUES))}, {"const": 0}]},
        {"const": "x" * MOST_BYTES},
        {"enum": ["x" * (MOST_BYTES // 2), "y" * (MOST_BYTES // 2)]},
        {"properties": {"x" * MOST_BYTES: True}},
        {"required": ["x" * MOST_BYTES]},
    ],
)
def test_a_schema_that_fixes_too_much_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=f"may list {MOST_VALUES} values and names of {MOST_BYTES} bytes"):
        value_of(schema, "schema")


def test_as_much_as_may_be_fixed() -> None:
    assert value_of({"enum": list(range(MOST_VALUES))}, "schema")
    assert value_of({"const": "x" * (MOST_BYTES - 2)}, "schema")


@pytest.mark.parametrize("keyword", ["const", "enum"])
def test_a_value_too_deep_to_be_written_is_the_callers_fault(keyword: str) -> None:
    value: Any = []
    for _ in range(5000):
        value = [value]
    with pytest.raises(BadRequest, match="too deep"):
        value_of({keyword: value if keyword == "const" else [value]}, "schema")


def test_alternatives_that_their_types_tell_apart() -> None:
    assert value_of({"oneOf": [{"type": "string"}, {"type": ["integer", "null"]}]}, "schema")
    for other in ("number", "integer", ["string", "number"]):
        with pytest.raises(UnsupportedParameter):
            value_of({"oneOf": [{"type": "integer"}, {"type": other}]}, "schema")


def test_health_answers_while_schemas_are_read(text: EngineProcess) -> None:
    tool = {"type": "function", "function": {"name": "f", "strict": True, "parameters": one_of(240, 19)}}
    body = json.dumps(chat("x", tools=[tool] * 20, tool_choice="whatever")).encode()
    longest, whole = slowest_health(text, CHAT, body, "tool_choice")
    assert longest < whole / 2
