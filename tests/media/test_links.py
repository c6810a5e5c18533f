"""Signed links: who may download what, until when."""

import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq import errors
from inferq.media.links import FILE, load_secret, sign, verify

SHA, SECRET = "ab" * 32, b"s" * 32


def fields(text: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(text, strict_parsing=True).items()}


def test_a_link_is_good_until_it_expires():
    query = fields(sign(SHA, 1000, SECRET))
    assert set(query) == {"expires", "signature"}
    assert verify(SHA, query, SECRET, now=999.9)
    assert not verify(SHA, query, SECRET, now=1000)


def test_the_clock_on_the_wall_counts():
    assert verify(SHA, fields(sign(SHA, 99_999_999_999, SECRET)), SECRET)
    assert not verify(SHA, fields(sign(SHA, 1, SECRET)), SECRET)


@pytest.mark.parametrize(
    "change",
    [
        {"expires": "2000"},
        {"expires": "01000"},
        {"expires": "+1000"},
        {"expires": " 1000"},
        {"expires": "1_000"},
        {"expires": "¹000"},
        {"expires": "1e3"},
        {"expires": "1" * 5000},
        {"expires": ""},
        {"signature": ""},
        {"signature": "0" * 64},
        {"signature": "é\ud800"},
    ],
)
def test_nothing_may_be_changed(change: dict[str, str]):
    assert not verify(SHA, fields(sign(SHA, 1000, SECRET)) | change, SECRET, now=0)


def test_a_link_is_for_one_artifact_and_one_secret():
    query = fields(sign(SHA, 1000, SECRET))
    assert not verify("cd" * 32, query, SECRET, now=0)
    assert not verify(SHA, query, b"t" * 32, now=0)
    assert not verify(SHA, {}, SECRET, now=0)
    # No digits may wander from one to the other.
    assert not verify(SHA + "1", fields(sign(SHA, 11, SECRET)) | {"expires": "1"}, SECRET, now=0)


@given(st.text(), st.text())
def test_any_text_is_only_wrong(expires: str, signature: str):
    assert not verify(SHA, {"expires": expires, "signature": signature}, SECRET, now=0)


def test_the_secret_is_made_once_and_for_us_alone(home: Path):
    folder = home / "deeper"
    first = load_secret(folder)
    assert len(first) >= 43
    assert load_secret(folder) == first
    assert (folder / FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in folder.iterdir()] == [FILE]
    assert load_secret(home) != first


def test_a_configured_secret_needs_no_file(home: Path):
    assert load_secret(home, "c" * 32) == b"c" * 32
    assert list(home.iterdir()) == []


def test_processes_that_start_together_agree(home: Path):
    code = "import sys; from pathlib import Path; from inferq.media.links import load_secret\n"
    code += "sys.stdin.read(); print(load_secret(Path(sys.argv[1])))"
    command = [sys.executable, "-c", code, str(home)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for process in started:
        process.stdin.close()
    assert len({process.stdout.read() for process in started}) == 1
    for process in started:
        process.stdout.close()
        assert process.wait() == 0


@pytest.mark.parametrize("text", ["", "\n", "short\n"])
def test_a_file_that_holds_no_secret_is_not_used(home: Path, text: str):
    (home / FILE).write_text(text)
    with pytest.raises(errors.ConfigError, match=r"links\.key holds less than 32 characters"):
        load_secret(home)


def test_a_file_that_cannot_be_read(home: Path):
    (home / FILE).mkdir()
    with pytest.raises(errors.ConfigError, match=r"cannot use .*links\.key"):
        load_secret(home)
