"""What a caller may write where a file is meant, and what is refused."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq import errors
from inferq.media.reference import Inline, Reference, Remote, Stored, parse

SHA = "ab" * 32


OURS = {"inferq.example", "127.0.0.1:9000"}


def read(value: Any, limit: int = 1000, *, raw_base64: bool = False) -> Reference:
    return parse(value, param="image", limit=limit, raw_base64=raw_base64, ours=OURS)


def refusal(value: Any, limit: int = 1000, *, raw_base64: bool = False) -> errors.InvalidRequest:
    with pytest.raises(errors.InvalidRequest) as caught:
        read(value, limit, raw_base64=raw_base64)
    assert caught.value.param == "image"
    return caught.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data:image/png;base64,aGVsbG8=", Inline(b"hello", "image/png")),
        ("data:Image/PNG;BASE64,aGVsbG8=", Inline(b"hello", "image/png")),
        ("DATA:;base64,aGVsbG8", Inline(b"hello")),
        ("data:image/png;base64,aGVs\n bG8=", Inline(b"hello", "image/png")),
        ("data:image/png;base64,aGVsbG8%3D", Inline(b"hello", "image/png")),
        ("data:image/svg+xml;charset=utf-8;base64,aGVsbG8=", Inline(b"hello", "image/svg+xml")),
        ("data:,a%20b%FF", Inline(b"a b\xff")),
        ("data:text/plain;charset=utf-8,é,b", Inline("é,b".encode(), "text/plain")),
        ("data:audio/wav;base64,", Inline(b"", "audio/wav")),
    ],
)
def test_data_urls(text: str, expected: Inline):
    assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data:image/png;base64", "no comma"),
        ("data:" + "x" * 300 + ",", "no comma"),
        ("data:image/png;base64,aGVsbG8-", "base64"),
        ("data:image/png;base64,a", "base64"),
        ("data:image/png;base64,aGVs=bG8", "base64"),
        ("data:image/png;base64,\ud800", "base64"),
        ("data:not a type;base64,aGVsbG8=", "media type"),
        ("data:text/html\r\nX: y,x", "media type"),
    ],
)
def test_broken_data_urls(text: str, said: str):
    assert said in refusal(text).message


@given(st.binary(max_size=200))
def test_what_was_encoded_is_what_is_read(data: bytes):
    text = base64.b64encode(data).decode()
    assert read(f"data:;base64,{text}") == Inline(data)
    if text:
        assert read(text, raw_base64=True) == Inline(data)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_data_is_bounded_to_the_byte(size: int):
    data = b"x" * size
    for text in (
        f"data:;base64,{base64.b64encode(data).decode()}",
        f"data:,{data.decode()}",
        "data:," + "%78" * size,
    ):
        assert read(text, size) == Inline(data)
        assert f"larger than {size - 1} bytes" in refusal(text, size - 1).message


def test_data_is_bounded_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("binascii.a2b_base64", None)
    monkeypatch.setattr("inferq.media.reference.unquote_to_bytes", None)
    for text in ("data:;base64," + "A" * 100, "data:," + "%41" * 100):
        assert "larger than 10 bytes" in refusal(text, 10).message


def test_bare_base64_only_where_it_is_wanted():
    assert read("aGVsbG8=", raw_base64=True) == Inline(b"hello")
    assert "expected" in refusal("aGVsbG8=").message
    assert "base64" in refusal("not base64!", raw_base64=True).message
    assert "larger than 3 bytes" in refusal("aGVsbG8=", 3, raw_base64=True).message
    assert read(SHA, raw_base64=True) == Stored(SHA)


@pytest.mark.parametrize(
    "text",
    [
        SHA,
        f"artifact:{SHA}",
        f"https://inferq.example/v1/artifacts/{SHA}",
        f"http://127.0.0.1:9000/v1/artifacts/{SHA}?expires=1&signature=x#top",
        f"https://inferq.example/behind/a/proxy/v1/artifacts/{SHA}",
    ],
)
def test_artifacts(text: str):
    assert read(text) == Stored(SHA)


@pytest.mark.parametrize(
    "text", [f"artifact:{SHA[1:]}", f"artifact:{SHA.upper()}", "artifact:", f"artifact:../{SHA}"]
)
def test_broken_artifact_ids(text: str):
    assert "64 hexadecimal digits" in refusal(text).message


def test_a_path_that_only_looks_like_ours_is_a_url():
    for host in ("example.com", "inferq.example:8443", "127.0.0.1", "x.inferq.example"):
        assert isinstance(read(f"https://{host}/v1/artifacts/{SHA}"), Remote)
    assert isinstance(read(f"https://inferq.example/v1/artifacts/{SHA}/x"), Remote)
    assert isinstance(read(f"https://inferq.example/?/v1/artifacts/{SHA}"), Remote)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("https://example.com", "example.com"),
        ("HTTPS://EXAMPLE.com:443/a?b=c#d", "example.com"),
        ("http://example.com.:80/", "example.com."),
        ("https://bücher.example/ü", "xn--bcher-kva.example"),
        ("https://1.2.3.4/", "1.2.3.4"),
        ("https://[2001:db8::1]:8443/", "2001:db8::1"),
        ("https://a_b.example/", "a_b.example"),
        # What looks like another number is one, and is then checked as the address it is.
        ("https://①②⑦.0.0.1/", "127.0.0.1"),
        ("https://[::ffff:127.0.0.1]/", "::ffff:7f00:1"),
    ],
)
def test_urls(text: str, host: str):
    found = read(text)
    assert isinstance(found, Remote)
    assert found.url.raw_host == host
    assert not found.url.raw_fragment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/etc/passwd",
        "picture.png",
        "//example.com/a",
        "?x",
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "ftp://example.com/a",
        "gopher://example.com/_x",
        "dict://example.com",
        "jar:https://example.com!/a",
        "blob:https://example.com/1",
        "javascript:alert(1)",
        "https:example.com",
        "https:/example.com",
        "https://",
        "https:///a",
        "https://:443/",
        "https://?x",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://@example.com/",
        "https:///@example.com/",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com:x/",
        "https://example.com:-1/",
        "https://exa mple.com/",
        " https://example.com/",
        "https://example.com/\n",
        "https://example.com/\r\nHost: x",
        "https://example.com/\x00",
        "https://example.com/\x7f",
        "https://example.com\\@127.0.0.1/",
        "https://example.com/\u2028",
        "https://example.com%2f/",
        "https://127.1/",
        "https://127.0.1/",
        "https://0/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.0x0.0x0.0x1/",
        "https://0177.0.0.1/",
        "https://127.0.0.01/",
        "https://127.0.0.1./",
        "https://1.2.3.4.5/",
        "https://999.1.1.1/",
        "https://127.0.0.0x1/",
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://[::1/",
        "https://::1/",
        "https://ex*ample.com/",
        "https://" + "a" * 254 + ".com/",
        "https://example.com/" + "a" * 9000,
        "https://\ud800/",
    ],
)
def test_refused(text: str):
    message = refusal(text).message
    assert "'image'" in message
    assert "127.0.0" not in message


@pytest.mark.parametrize("value", [None, 1, True, [], {}, b"data:,x"])
def test_only_text(value: Any):
    assert "expected a URL" in refusal(value).message


@given(
    st.text(max_size=80)
    | st.text(max_size=60).map("https://".__add__)
    | st.text(max_size=60).map("data:".__add__)
)
def test_any_text_is_read_or_refused(text: str):
    try:
        read(text, raw_base64=True)
    except errors.InvalidRequest as error:
        assert len(error.message) < 200
