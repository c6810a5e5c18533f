"""Forms: what their fields become, that files go on as they come, and that a broken or hostile form is a clear 4xx."""

import asyncio
import contextlib
import json
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from api import body, forms
from api.departure import CallerLeft
from api.forms import FormFile, is_form, read_form
from inferq import errors
from inferq.endpoints.fields import ARRAY, BOOLEAN, INTEGER, NUMBER, OBJECT, STRING, Field

TABLE = {
    "n": Field(types=(INTEGER,), doc=""),
    "temperature": Field(types=(NUMBER,), doc=""),
    "stream": Field(types=(BOOLEAN,), doc=""),
    "include": Field(types=(ARRAY,), doc=""),
    "chunking": Field(types=(STRING, OBJECT), doc=""),
    "extra": Field(types=(OBJECT,), doc=""),
    "image": Field(types=(STRING, ARRAY), doc=""),
    "prompt": Field(types=(STRING,), doc=""),
}
TYPE = 'multipart/form-data; boundary="B"'


def request_of(
    data: bytes | list[bytes],
    content_type: str = TYPE,
    *,
    ends: bool = True,
    headers: dict[str, str] | None = None,
) -> Request:
    """A request whose body comes in these pieces, and then ends, or stops coming."""
    pieces = [data] if isinstance(data, bytes) else list(data)
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if ends:
        messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Any:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    fields = {"content-type": content_type, **(headers or {})}
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]
    made = Request({"type": "http", "method": "POST", "headers": pairs}, receive)
    made.state.left = messages
    return made


def part(name: str, data: str | bytes, filename: str | None = None, *headers: str) -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        disposition += f'; filename="{filename}"'
    raw = data.encode() if isinstance(data, str) else data
    return "\r\n".join(["--B", disposition, *headers, "", ""]).encode() + raw + b"\r\n"


END = b"--B--\r\n"


async def whole(file: FormFile) -> Any:
    data = b"".join([chunk async for chunk in file.chunks])
    return (file.filename, file.media_type, data)


async def read(request: Request, on_file: Any = whole, limit: int = 10_000_000) -> dict[str, Any]:
    return await read_form(
        request, TABLE, files={"image", "file"}, on_file=on_file, limit=limit, most_files=0
    )


async def refusal(request: Request, on_file: Any = whole, **more: Any) -> errors.InvalidRequest:
    with pytest.raises(errors.InvalidRequest) as caught:
        await read(request, on_file, **more)
    return caught.value


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(body, "LINGER_SECONDS", 0.2)


async def test_text_becomes_what_the_table_says():
    data = b"".join(
        [
            part("n", "3"),
            part("temperature", "0.5"),
            part("stream", "True"),
            part("prompt", "42"),
            part("unknown", "7"),
            part("include[]", "logprobs"),
            part("include[]", "usage"),
            part("chunking[type]", "server_vad"),
            part("chunking[prefix_ms]", "300"),
            part("chunking[threshold]", "0.5"),
            part("chunking[on]", "false"),
            part("extra", '{"a": [1]}'),
            part("more[]", "x"),
            part("image", "https://example.com/a.png"),
            END,
        ]
    )
    assert await read(request_of(data)) == {
        "n": 3,
        "temperature": 0.5,
        "stream": True,
        "prompt": "42",
        "unknown": "7",
        "include": ["logprobs", "usage"],
        "chunking": {"type": "server_vad", "prefix_ms": 300, "threshold": 0.5, "on": False},
        "extra": {"a": [1]},
        "more": ["x"],
        "image": "https://example.com/a.png",
    }


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("n", "-1", -1),
        ("temperature", "1", 1),
        ("temperature", "1e-3", 0.001),
        ("stream", "false", False),
        ("include", "word", ["word"]),
        ("include", '["a", "b"]', ["a", "b"]),
        ("chunking", "auto", "auto"),
        ("prompt", "", ""),
        ("prompt", "\r\n--b--\r\n\u2028ü", "\r\n--b--\r\n\u2028ü"),
    ],
)
async def test_values(name: str, text: str, value: Any):
    assert await read(request_of(part(name, text) + END)) == {name: value}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n", "x"),
        ("n", ""),
        ("n", "1.5"),
        ("n", "true"),
        ("n", "9" * 30),
        ("n", "१"),
        ("temperature", "nan"),
        ("temperature", "1e999"),
        ("temperature", "inf"),
        ("temperature", "false"),
        ("stream", "yes"),
        ("stream", "2"),
        ("include", "[1"),
        ("extra", "[]"),
        ("extra", "x"),
    ],
)
async def test_values_that_do_not_fit_are_named(name: str, text: str):
    refused = await refusal(request_of(part(name, text) + END))
    assert refused.param == name
    assert "expected" in refused.message


async def test_files_go_on_as_they_come():
    seen: list[bytes] = []
    arrived = asyncio.Event()

    async def on_file(file: FormFile) -> str:
        async for chunk in file.chunks:
            seen.append(chunk)
            arrived.set()
        return "stored"

    head, tail = part("file", b"hello" * 100, "a.wav")[:-200], part("file", b"hello" * 100, "a.wav")[-200:]
    pieces: asyncio.Queue[bytes] = asyncio.Queue()
    made = request_of(b"")

    async def receive() -> Any:
        return {"type": "http.request", "body": await pieces.get(), "more_body": True}

    made._receive = receive
    pieces.put_nowait(head)
    task = asyncio.create_task(read(made, on_file))
    await arrived.wait()
    assert b"".join(seen).startswith(b"hello" * 10)
    assert not task.done()
    pieces.put_nowait(tail + END)

    async def last() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    made._receive = last
    pieces.put_nowait(b"")
    assert await task == {"file": "stored"}
    assert b"".join(seen) == b"hello" * 100


async def test_a_file_is_told_with_what_its_sender_says():
    data = part("file", b"\x00\r\n--X", "tö.wav", "Content-Type: audio/wav; x=y") + part("n", "1") + END
    assert await read(request_of(data)) == {"file": ("tö.wav", "audio/wav", b"\x00\r\n--X"), "n": 1}


async def test_many_files():
    data = part("image[]", "a", "1") + part("image[]", "b", "2") + part("prompt", "x") + END
    found = await read(request_of(data))
    assert [name for name, *_ in found["image"]] == ["1", "2"]
    data = part("image", "a", "1") + part("image", "b", "2") + part("image", "https://x") + END
    assert [item[0] for item in (await read(request_of(data)))["image"]] == ["1", "2", "h"]


@pytest.mark.parametrize("taken", [0, 1])
async def test_what_a_file_s_taker_leaves_is_skipped(taken: int):
    async def on_file(file: FormFile) -> str:
        if taken:
            async for _ in file.chunks:
                break
        return "enough"

    data = part("file", b"x" * 5000, "a") + part("n", "1") + END
    pieces = [data[at : at + 100] for at in range(0, len(data), 100)]
    assert await read(request_of(pieces), on_file) == {"file": "enough", "n": 1}


async def test_a_refusal_of_a_file_goes_through_and_the_rest_is_read_off():
    async def on_file(_file: FormFile) -> None:
        raise errors.InvalidRequest("not a picture", param="image")

    made = request_of([part("image", b"x" * 5000, "a"), b"y" * 1000, b"z" * 1000])
    assert (await refusal(made, on_file)).message == "not a picture"
    assert made.state.left == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "ends before its closing boundary"),
        (b"\r\n", "ends before its closing boundary"),
        (part("n", "1"), "ends before its closing boundary"),
        (part("n", "1")[:30], "ends before its closing boundary"),
        (part("file", b"x" * 100, "a")[:-50], "ends before its closing boundary"),
        (b"--X\r\n", "its boundary is not the one"),
        (b"no form at all", "its boundary is not the one"),
        (b'{"model": "x"}', "its boundary is not the one"),
        (b"--B\r\n\r\nx\r\n--B--\r\n", "does not say which field"),
        (b"--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n--B--\r\n", "does not say which field"),
        (b"--B\r\nContent-Disposition: attachment; name=n\r\n\r\nx\r\n--B--\r\n", "does not say which field"),
        (b"--B\r\nContent Disposition: x\r\n\r\nx\r\n--B--\r\n", "headers are malformed"),
        (b"--B\r\n: x\r\n\r\nx\r\n--B--\r\n", "headers are malformed"),
        (b"--B\r\nX: y\rZ\r\n\r\nx\r\n--B--\r\n", "headers are malformed"),
        (part("", "x") + END, "a name that no field has"),
        (part("a b", "x") + END, "a name that no field has"),
        (part("n[a][b]", "x") + END, "a name that no field has"),
        (part("n]", "x") + END, "a name that no field has"),
        (part("x" * 65, "x") + END, "a name that no field has"),
        (part("prompt", b"\xff") + END, "not UTF-8"),
        (part("file", b"x", "a").replace(b'"a"', b'"\xff"') + END, "not UTF-8"),
        (part("prompt", "x", "a.txt") + END, "'prompt' takes no file"),
        (part("n", "1") + part("n", "2") + END, "'n' is given more than once"),
        (part("file", "1", "a") + part("file", "2", "b") + END, "'file' is given more than once"),
        (part("n", "1") + part("n[]", "2") + END, "'n[]' is given more than once"),
        (part("n", "1") + part("n[a]", "2") + END, "'n[a]' is given more than once"),
        (part("x[a]", "1") + part("x[a]", "2") + END, "'x[a]' is given more than once"),
        (part("x[a]", "1") + part("x[]", "2") + END, "'x[]' is given more than once"),
        (part("x[]", "1") + part("x", "2") + END, "'x' is given more than once"),
        (part("include", "[]") + part("include", "[]") + END, "'include' is given more than once"),
        (part("file", "eA==", "a", "Content-Transfer-Encoding: base64") + END, "send its bytes as they are"),
        (part("n", "1", None, 'Content-Disposition: form-data; name="m"') + END, "same header twice"),
        (
            part("n", "1", None, *[f"X-{number}: y" for number in range(20)]) + END,
            "too many or too long headers",
        ),
        (part("n", "1", None, "X: " + "y" * 5000) + END, "too many or too long headers"),
        (part("n", "1", None, "X" * 5000 + ": y") + END, "too many or too long headers"),
        (part("n", "1", "y" * 5000) + END, "too many or too long headers"),
        (b"".join(part(f"f{number}", "x") for number in range(129)) + END, "more than 128 parts"),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 1_000_000])
async def test_broken_forms(data: bytes, said: str, step: int):
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    made = request_of(pieces)
    refused = await refusal(made)
    assert said in refused.message
    assert len(refused.message) < 200
    assert made.state.left == []


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 71,
        "multipart/mixed; boundary=B",
        "multipart/form-data; boundary*=B",
        'multipart/form-data; boundary="',
    ],
)
async def test_types_that_are_no_form(content_type: str):
    refused = await refusal(request_of(part("n", "1") + END, content_type))
    assert refused.param == "Content-Type" or "boundary" in refused.message


def test_is_form():
    assert is_form(request_of(b"", "Multipart/Form-Data; boundary=x"))
    assert not is_form(request_of(b"", "application/json"))
    assert not is_form(request_of(b"", ""))


async def test_text_is_bounded_over_all_fields(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forms, "MOST_TEXT", 100)
    assert await read(request_of(part("a", "x" * 60) + part("b", "x" * 40) + END))
    refused = await refusal(request_of(part("a", "x" * 60) + part("b", "x" * 41) + END))
    assert "larger than 100 bytes together" in refused.message


async def test_the_body_is_bounded_while_it_comes_and_before():
    data = part("file", b"x" * 1000, "a") + END
    assert await read(request_of(data), limit=len(data))
    for made in (
        request_of([data[:500], data[500:], b"more"]),
        request_of([data[:500], data[500:]], headers={"content-length": str(len(data))}),
    ):
        refused = await refusal(made, limit=len(data) - 1)
        assert isinstance(refused, errors.BodyTooLarge)
        assert made.state.left == []


async def test_bytes_behind_the_end_are_read_off_and_bounded():
    data = part("n", "1") + END
    made = request_of([data, b"epilogue" * 10])
    assert await read(made) == {"n": 1}
    assert made.state.left == []
    assert isinstance(await refusal(request_of([data, b"x" * 10_000]), limit=1000), errors.BodyTooLarge)


async def test_compressed_forms_are_refused():
    assert "Compressed" in (await refusal(request_of(END, headers={"content-encoding": "gzip"}))).message


async def test_a_form_that_stops_coming(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(body, "SILENCE", 0.1)
    refused = await refusal(request_of(part("file", b"x" * 100, "a")[:-10], ends=False))
    assert isinstance(refused, errors.BodyTooSlow)


async def test_a_form_that_drips(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(body, "LONGEST", 0.3)
    made = request_of(b"")

    async def receive() -> Any:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"\r\n", "more_body": True}

    made._receive = receive
    assert isinstance(await refusal(made), errors.BodyTooSlow)


async def test_a_large_body_may_take_long(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(body, "LONGEST", 0.3)
    data = part("n", "1") + part("file", b"x" * 40_000, "a") + END
    made = request_of(b"")
    pieces = [data[at : at + 4096] for at in range(0, len(data), 4096)]

    async def receive() -> Any:
        await asyncio.sleep(0.1)
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    made._receive = receive
    assert (await read(made))["n"] == 1


async def test_a_caller_who_leaves():
    made = request_of(part("n", "1"))
    messages = [
        {"type": "http.request", "body": part("n", "1"), "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Any:
        return messages.pop(0)

    made._receive = receive
    with pytest.raises(CallerLeft):
        await read(made)


@pytest.mark.parametrize("cut", [1, 3, 64, 10_000])
async def test_what_real_clients_send_in_any_pieces(cut: int):
    sent = httpx2.Request(
        "POST",
        "http://x/",
        data={"n": "2", "prompt": "grüße", "include[]": ["a", "b"]},
        files={"image": ('a"b\\.png', b"\x89PNG\r\n" * 500 + b"\r\n--", "image/png")},
    )
    data = sent.read()
    found = await read(
        request_of([data[at : at + cut] for at in range(0, len(data), cut)], sent.headers["Content-Type"])
    )
    assert found["image"][1:] == ("image/png", b"\x89PNG\r\n" * 500 + b"\r\n--")
    assert (found["n"], found["prompt"], found["include"]) == (2, "grüße", ["a", "b"])


NAMES = st.sampled_from(["n", "prompt", "file", "image[]", "include", "chunking[a]", "x", "a b", ""])
PARTS = st.tuples(NAMES, st.binary(max_size=60), st.none() | st.text('ab".;=\\', max_size=8)).map(
    lambda p: part(*p)
)
PIECES = st.sampled_from(
    [
        b"--B",
        b"\r\n",
        b"--",
        b"--B--",
        b"\r",
        b"\n",
        b"-",
        b":",
        b'"',
        b";",
        b"Content-Disposition: form-data",
    ]
)
BODIES = st.lists(PARTS | PIECES | st.binary(max_size=20), max_size=12).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(BODIES, st.booleans(), st.integers(1, 40))
def test_any_bytes_are_read_or_refused(data: bytes, closed: bool, step: int):
    data = data + b"\r\n" + END if closed else data
    made = request_of([data[at : at + step] for at in range(0, len(data), step)])
    taken: list[int] = []

    async def on_file(file: FormFile) -> int:
        taken.append(sum([len(chunk) async for chunk in file.chunks]))
        return taken[-1]

    async def run() -> Any:
        async with asyncio.timeout(5):
            return await read(made, on_file)

    try:
        found = asyncio.run(run())
    except errors.InvalidRequest as error:
        assert len(error.message) < 200
    else:
        json.dumps(found)
    assert sum(taken) <= len(data)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_any_content_type_is_read_or_refused(content_type: str):
    made = request_of(END, content_type.encode("latin-1", "replace").decode("latin-1"))
    with contextlib.suppress(errors.InvalidRequest):
        asyncio.run(read(made))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.integers(1, 500))
def test_files_come_out_as_they_went_in(contents: list[bytes], step: int):
    contents = [content.replace(b"\r\n--B", b"") for content in contents]
    data = b"".join(part("image[]", content, "a") for content in contents) + END
    made = request_of([data[at : at + step] for at in range(0, len(data), step)])
    assert [item[2] for item in asyncio.run(read(made))["image"]] == contents
