"""The pure parts behind dead letters: patterns of messages, merge patches, points in time."""

import json

import pytest

from inferq import errors
from inferq.causes import LONGEST, pattern_of
from inferq.merge_patch import merged
from inferq.moment import parse_moment

NOW = 1_795_000_000.0


@pytest.mark.parametrize(
    ("message", "pattern"),
    [
        ("it broke", "it broke"),
        ("out of memory: 12.50 GiB of 79,1", "out of memory: <n> GiB of <n>"),
        ("cannot read /data/a-1/b.wav: gone", "cannot read <path>: gone"),
        ("job 019a1b2c-0000-7000-8000-00000000000a was lost", "job <id> was lost"),
        ("artifact " + "0a" * 32 + " is gone", "artifact <id> is gone"),
        ("at 0x7f3a9c001f40", "at <id>"),
        ("GET https://hub.example/a/b?c=1 answered 503", "GET <url> answered <n>"),
        ("a facade and defaced deadbeef", "a facade and defaced deadbeef"),
        ("/v1/embeddings is not offered", "<path> is not offered"),
        ("and/or, 3/4 and n/a", "and/or, <n>/<n> and n/a"),
        ("line one\n\n  line  two\t", "line one line two"),
        ("", ""),
    ],
)
def test_patterns(message: str, pattern: str) -> None:
    assert pattern_of(message) == pattern


@pytest.mark.parametrize("text", ["a", "/a", "0", "a:", "abcdefab", " x"])
def test_patterns_are_short(text: str) -> None:
    assert 1 <= len(pattern_of(text * 10**6)) <= LONGEST


# The examples of RFC 7396, appendix A.
@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
        ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
        ('{"a":"b"}', '{"a":null}', "{}"),
        ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
        ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
        ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
        ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
        ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
        ('["a","b"]', '["c","d"]', '["c","d"]'),
        ('{"a":"b"}', '["c"]', '["c"]'),
        ('{"a":"foo"}', "null", "null"),
        ('{"a":"foo"}', '"bar"', '"bar"'),
        ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
        ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
        ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
    ],
)
def test_merge_patch(target: str, patch: str, result: str) -> None:
    given, wanted = json.loads(target), json.loads(patch)
    assert merged(given, wanted) == json.loads(result)
    assert (given, wanted) == (json.loads(target), json.loads(patch))


def test_a_patch_that_is_nested_too_deep_is_refused() -> None:
    patch: dict[str, object] = {}
    for _ in range(2000):
        patch = {"a": patch}
    with pytest.raises(errors.InvalidRequest):
        merged({}, patch)


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        (5, 5.0),
        (5.5, 5.5),
        ("1795000000", NOW),
        ("2h", NOW - 7200),
        ("90 s", NOW - 90),
        ("100000d", 0.0),
        ("2026-11-21T10:00:00Z", 1_795_255_200.0),
        ("2026-11-21T10:00", 1_795_255_200.0),
        ("2026-11-21 12:00:00+02:00", 1_795_255_200.0),
        ("2026-11-21", 1_795_219_200.0),
    ],
)
def test_moments(written: object, moment: float) -> None:
    assert parse_moment(written, NOW, param="since") == moment


@pytest.mark.parametrize(
    "written",
    [
        "",
        "yesterday",
        "nan",
        "inf",
        "-5",
        -1,
        True,
        None,
        [],
        "9" * 400,
        10**400,
        1e300,
        "2026-13-40",
        "9e9d",
    ],
)
def test_no_moments(written: object) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        parse_moment(written, NOW, param="since")
    assert caught.value.param == "since"
    assert len(caught.value.message) < 200
