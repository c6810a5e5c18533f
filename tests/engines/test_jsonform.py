"""The JSON machine agrees with Python's own reader, byte for byte."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.engines.textgen.jsonform import ANY, OBJECT, JsonState, step

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def run(state: JsonState, text: bytes) -> JsonState | None:
    for byte in text:
        following = step(state, byte)
        if following is None:
            return None
        state = following
    return state


def read(text: bytes) -> bool:
    try:
        json.loads(text.decode())
    except ValueError:
        return False
    return True


@given(
    value=st.dictionaries(st.text(), values, max_size=4),
    ascii_only=st.booleans(),
    indent=st.none() | st.just(2),
)
def test_every_object_is_accepted_to_its_last_byte(
    value: object, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    if read_utf8(text):
        assert run(OBJECT, text) == ()


def read_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(value=st.dictionaries(st.text("ab"), values, min_size=1, max_size=3), data=st.data())
def test_what_it_accepts_python_reads(value: object, data: st.DataObject) -> None:
    """Change one byte: whatever the machine then still calls complete must be JSON."""
    text = bytearray(json.dumps(value).encode())
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] = data.draw(st.sampled_from(b'{}[]",:0123456789.eE+-tfn \\u'))
    if run(OBJECT, bytes(text)) == ():
        assert read(bytes(text))


@pytest.mark.parametrize(
    "text",
    [
        "{,}",
        '{"a"}',
        '{"a":}',
        '{"a":1,}',
        "[1]",
        '{"a":01}',
        '{"a":1.}',
        '{"a":+1}',
        '{"a":"\\x"}',
        '{"a":nul}',
        "{}}",
    ],
)
def test_what_is_no_object_is_stopped(text: str) -> None:
    assert run(OBJECT, text.encode()) is None


def test_a_number_alone_is_never_known_to_be_complete() -> None:
    assert run(ANY, b"12") == ("1",)
    assert run(ANY, b'"x"') == ()


def test_broken_utf8_is_stopped() -> None:
    assert run(OBJECT, b'{"a":"\xff') is None
    assert run(OBJECT, b'{"a":"\xe4"') is None
