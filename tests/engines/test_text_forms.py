"""Forms of answers: what a JSON schema allows is written, and nothing else."""

import json
import random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.engines.failures import BadRequest, UnsupportedParameter
from workers.engines.textgen.demand import demanded
from workers.engines.textgen.forms import (
    ANY_OBJECT,
    LONGEST_NUMBER,
    Repeat,
    Stack,
    State,
    Text,
    Until,
    after,
    opened,
)
from workers.engines.textgen.schema import value_of

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b é", 3, None]}, "minItems": 1, "maxItems": 3},
        "nick": {"type": ["string", "null"]},
    },
    "required": ["name", "tags"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "number"},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["value", "next"],
        }
    },
    "$ref": "#/$defs/node",
}


def state_of(schema: Any) -> State:
    return opened([(value_of(schema, "schema"),)])


def run(state: State, text: str) -> State:
    for byte in text.encode():
        state = after(state, byte)
    return state


def accepts(schema: Any, text: str) -> bool:
    """Whether the text is a whole answer. A number shows its end by what follows."""
    return () in run(state_of(schema), text)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (PERSON, {"name": "Ada", "tags": ["a"]}, {"tags": ["a"], "name": "Ada"}),
        (PERSON, {"name": "é", "age": 150, "tags": ["b é", 3, None]}, {"name": "", "tags": ["a"]}),
        (PERSON, {"name": "x", "tags": ["a"], "nick": None}, {"name": "x", "age": 151, "tags": ["a"]}),
        (PERSON, {"name": "x", "age": 0, "tags": ["a"]}, {"name": "x", "age": -1, "tags": ["a"]}),
        (PERSON, {"name": "x", "tags": ["a", "a", "a"]}, {"name": "x", "tags": ["a", "a", "a", "a"]}),
        (PERSON, {"name": "x", "tags": ["a"], "nick": "y"}, {"name": "x", "tags": []}),
        (PERSON, {"name": "x", "tags": ["a"]}, {"name": "x", "tags": ["a"], "more": 1}),
        (TREE, {"value": 1.5, "next": {"value": -2, "next": None}}, {"value": "1", "next": None}),
        ({"type": "object"}, {"a": [1, {"b": "c"}]}, [1]),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"a": 1, "b": 2}, {"a": "1"}),
        ({"properties": {}, "additionalProperties": False}, {}, {"a": 1}),
        ({"required": ["x"]}, {"x": [1, {}]}, {}),
        ({"const": {"a": 1}}, {"a": 1}, {"a": 2}),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, True, 1),
        ({"allOf": [{"type": "boolean"}]}, False, None),
        ({"type": "string", "maxLength": 2}, "é🙂", "abc"),
        ({"type": "array", "items": {"type": "number"}}, [], ["1"]),
        ({"title": "anything", "description": "at all"}, {"a": 1}, ...),
    ],
)
def test_a_schema_tells_good_from_bad(schema: Any, good: Any, bad: Any) -> None:
    assert accepts(schema, json.dumps(good, ensure_ascii=False))
    assert bad is ... or not accepts(schema, json.dumps(bad, ensure_ascii=False))


@given(st.integers(-300, 300), st.integers(-300, 300), st.integers(0, 60), st.booleans())
def test_whole_numbers_stay_within_bounds(value: int, low: int, width: int, exclusive: bool) -> None:
    words = ("exclusiveMinimum", "exclusiveMaximum") if exclusive else ("minimum", "maximum")
    high = low + width + 2 * exclusive
    schema = {"type": "integer", words[0]: low, words[1]: high}
    within = low < value < high if exclusive else low <= value <= high
    assert accepts(schema, str(value)) == within


@given(st.decimals(-99, 99, places=3), st.floats(-99, 99), st.floats(0.01, 50), st.booleans())
def test_numbers_stay_within_bounds(value: Any, low: float, width: float, exclusive: bool) -> None:
    words = ("exclusiveMinimum", "exclusiveMaximum") if exclusive else ("minimum", "maximum")
    schema = {"type": "number", words[0]: low, words[1]: low + width}
    held = low < float(value) < low + width if exclusive else low <= float(value) <= low + width
    assert accepts(schema, f"{value:f}") == held


def test_a_number_of_the_longest_length_lies_within_bounds() -> None:
    state = state_of({"type": "number", "exclusiveMinimum": 0})
    zeros = "0." + "0" * (LONGEST_NUMBER - 3)
    assert () in run(state, f"{zeros}1")
    assert run(state, zeros)
    assert not run(state, f"{zeros}0")
    assert not run(state, f"{zeros}11")


def wander(state: State, rng: random.Random) -> bytes:
    """A text that a model without a clue might write, one byte after the other. Fails at a dead end."""
    said = b""
    while not (() in state and rng.random() < 0.2):
        ways = {byte: after(state, byte) for byte in range(256)}
        fit = [byte for byte, following in ways.items() if following]
        if () in state and not fit:
            break
        assert fit, f"a dead end after {said!r}"
        # Texts would grow for ever if quotes were as rare as they are among bytes.
        closing = [byte for byte in fit if byte in b'"]}']
        byte = rng.choice(closing if closing and rng.random() < 0.4 else fit)
        state, said = ways[byte], said + bytes((byte,))
        assert len(said) < 5000
    return said


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_written_fits(seed: int) -> None:
    rng = random.Random(seed)
    person = json.loads(wander(state_of(PERSON), rng))
    assert list(person) == [name for name in PERSON["properties"] if name in person]
    assert person["name"]
    assert 1 <= len(person["tags"]) <= 3
    assert set(map(str, person["tags"])) <= {"a", "b é", "3", "None"}
    assert 0 <= person.get("age", 0) <= 150
    value = json.loads(wander(state_of({"type": "number", "exclusiveMinimum": 0, "maximum": 0.001}), rng))
    assert 0 < value <= 0.001
    assert json.loads(wander(state_of({"type": "integer", "minimum": 995, "maximum": 1003}), rng)) in range(
        995, 1004
    )
    assert json.loads(
        wander(state_of({"type": "integer", "exclusiveMaximum": -7, "minimum": -12}), rng)
    ) in range(-12, -7)


@pytest.mark.parametrize(
    ("schema", "where"),
    [
        ({"type": "string", "pattern": "a+"}, "schema.pattern"),
        ({"type": "string", "format": "date"}, "schema.format"),
        ({"properties": {"x": {"type": "number", "multipleOf": 2}}}, "schema.properties.x.multipleOf"),
        ({"type": "array", "items": {"type": "string", "pattern": "a"}}, "schema.items.pattern"),
        ({"type": "array", "uniqueItems": True}, "schema.uniqueItems"),
        ({"anyOf": [{"type": "null"}], "minLength": 1}, "schema.minLength"),
        ({"allOf": [{"type": "null"}, {"type": "null"}]}, "schema.allOf"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "schema.oneOf"),
        ({"$ref": "https://example.org/x"}, "schema.$ref"),
        ({"not": {}}, "schema.not"),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"pattern": "a", "type": "string"}}}, "schema.$defs.x.pattern"),
    ],
)
def test_what_cannot_be_held_is_refused_by_name(schema: Any, where: str) -> None:
    with pytest.raises(UnsupportedParameter) as refused:
        state_of(schema)
    assert refused.value.param == where


def nested(depth: int) -> Any:
    schema: Any = {"type": "null"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        False,
        7,
        {"type": "text"},
        {"type": []},
        {"type": [["string"]]},
        {"enum": []},
        {"properties": []},
        {"required": "x"},
        {"type": "string", "minLength": -1},
        {"type": "array", "maxItems": 1.5},
        {"type": "number", "minimum": "0"},
        {"type": "number", "minimum": 1e300},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "integer", "exclusiveMinimum": 2, "exclusiveMaximum": 3},
        {"$ref": "#/$defs/absent"},
        {"$ref": "#"},
        {"anyOf": [{"$ref": "#"}]},
        nested(100),
        {"anyOf": [{"type": "null"}] * 3000},
        {"enum": list(range(6000))},
    ],
)
def test_a_schema_without_sense_is_refused(schema: Any) -> None:
    with pytest.raises(BadRequest) as refused:
        state_of(schema)
    assert str(refused.value.param).startswith("schema")


def test_every_value_of_a_long_list_can_be_said() -> None:
    values = ["", "a", "ab", 1, 12, 1.5, None, True, *(f"value {number}" for number in range(1000))]
    schema = {"enum": values}
    assert all(accepts(schema, json.dumps(value)) for value in values)
    assert not any(accepts(schema, text) for text in ("", '"b"', "2", "123", '"value 1000"', '"value'))
    optional = {"properties": {f"p{number}": {"type": "null"} for number in range(400)}}
    assert all(accepts(optional, f'{{"p{number}": null}}') for number in (0, 17, 399))


def test_alternatives_that_exclude_each_other() -> None:
    kinds = [
        {"type": "object", "properties": {"kind": {"const": kind}}, "required": ["kind"]}
        for kind in ("cat", "dog")
    ]
    for schema in ({"oneOf": kinds}, {"oneOf": [{"$ref": "#/$defs/a"}, kinds[1]], "$defs": {"a": kinds[0]}}):
        assert accepts(schema, '{"kind": "dog"}')
        assert not accepts(schema, '{"kind": "cow"}')


def test_texts_before_and_between_what_is_held() -> None:
    row: Stack = (ANY_OBJECT, Text(b"["), Until(b"<call>", may_end=True))
    state = run(opened([(Repeat(row),)]), "some words <<call>[{}] more <call>[")
    assert state
    assert not run(state, "x")
    assert run(state, "{}")


def test_a_number_in_free_json_ends_where_something_else_begins() -> None:
    assert accepts({"properties": {"x": True}, "required": ["x"]}, '{"x": 12}')
    assert accepts({"type": "array"}, "[12, 1e5, -0.5]")
    assert not accepts({"type": "array", "items": {"type": "number"}}, "[1e5]")


CALL_OF_A = '<tool_call>\n{"name": "a", "arguments": {}}\n</tool_call>'


def test_what_requests_demand() -> None:
    def asked(
        form: Any = None, mode: str = "none", strict: bool = False, several: bool = True, only: str = "ab"
    ) -> Any:
        forms = dict.fromkeys(only, ANY_OBJECT)
        tooling = SimpleNamespace(mode=mode, strict=strict, several=several, callable=forms)
        return SimpleNamespace(form=form, tooling=tooling)

    def ways(thinks_until: str | None = None, **more: Any) -> State:
        made = demanded(asked(**more), thinks_until)
        assert made is not None
        return opened(made)

    assert demanded(asked(mode="auto"), "</think>") is None
    assert () in run(ways(form=ANY_OBJECT), "{}")
    assert () in run(ways(mode="required"), CALL_OF_A)
    assert not run(ways(mode="named", only="b"), CALL_OF_A)
    # A thought that the prompt has begun is not held, the answer after it is.
    assert () in run(ways("</think>", form=ANY_OBJECT), "any words</think>{}")
    assert not run(ways("</think>", form=ANY_OBJECT), "any words</think>x")
    assert run(ways(mode="auto", strict=True), f"I see. {CALL_OF_A}\n{CALL_OF_A} and so on")
    assert run(ways(mode="auto", strict=True, several=False), CALL_OF_A) == {()}
