"""Stop texts and tool calls in growing text: however the text is cut, the outcome is the same."""

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from workers.engines.textgen.answer import Choice
from workers.engines.textgen.output import Piece, StopCutter
from workers.engines.textgen.tools import CallDelta, CallParser

CALL = '<tool_call>\n{"name": "f", "arguments": {"a": [1, "}"], "b": {"c": "é"}}}\n</tool_call>'


def pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in itertools.pairwise(places)]


@given(
    text=st.text("abc"), stops=st.lists(st.text("abc", min_size=1), max_size=3), cuts=st.lists(st.integers(0))
)
def test_stop_texts_are_cut_the_same_in_any_pieces(text: str, stops: list[str], cuts: list[int]) -> None:
    cutter = StopCutter(stops)
    shown = ""
    for piece in pieces(text, cuts):
        shown += cutter.push(piece)
        if cutter.stopped:
            break
    shown += cutter.flush()
    assert not any(stop in shown for stop in stops)
    assert text.startswith(shown)
    assert cutter.stopped == any(stop in text for stop in stops)
    assert cutter.stopped or shown == text


def parsed(text: str, cuts: list[int]) -> tuple[str, list[tuple[str, str]]]:
    parser = CallParser()
    deltas = [delta for piece in pieces(text, cuts) for delta in parser.push(piece)] + parser.flush()
    content = "".join(delta for delta in deltas if isinstance(delta, str))
    calls: dict[int, tuple[str, str]] = {}
    for delta in deltas:
        if isinstance(delta, CallDelta):
            name, arguments = calls.get(delta.index, (delta.name or "", ""))
            calls[delta.index] = (name, arguments + delta.arguments)
    return content, list(calls.values())


@given(cuts=st.lists(st.integers(0)))
def test_calls_are_found_in_any_pieces(cuts: list[int]) -> None:
    content, calls = parsed(f"Let me see.\n{CALL}\n{CALL}", cuts)
    assert content == "Let me see."
    assert [name for name, _ in calls] == ["f", "f"]
    assert json.loads(calls[1][1]) == {"a": [1, "}"], "b": {"c": "é"}}


@given(cuts=st.lists(st.integers(0)))
def test_a_call_in_another_order_is_found(cuts: list[int]) -> None:
    _, calls = parsed('<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', cuts)
    assert calls == [("f", '{"a": 1}')]


@given(cuts=st.lists(st.integers(0)))
def test_text_that_is_no_call_is_given_back(cuts: list[int]) -> None:
    text = "a <tool_call>nonsense</tool_call> b <tool"
    assert parsed(text, cuts) == (text, [])


def test_an_unfinished_call_is_given_back() -> None:
    assert parsed('x<tool_call>{"na', []) == ('x<tool_call>{"na', [])


def test_text_goes_out_at_once() -> None:
    parser = CallParser()
    assert parser.push("Hello") == ["Hello"]
    assert parser.push(" <t") == []
    assert parser.push("x") == [" <tx"]


def test_an_answer_of_one_call_ends_after_it() -> None:
    """`parallel_tool_calls: false`."""
    for several, expected in ((True, 2), (False, 1)):
        choice = Choice(0, CallParser(), None, several)
        for character in f"{CALL}\n{CALL}":
            if not choice.over():
                choice.take(Piece(character))
        assert len(choice.calls) == expected
        assert choice.finish == (None if several else "tool_calls")
