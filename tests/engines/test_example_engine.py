"""The engine that the documentation shows how to write: it passes the suite, and is found as a plug-in is."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferq.testing import Case, Conformance, served
from tests.engines.process import ROOT

FOLDER = ROOT / "examples" / "engine"
PATH = "/v1/chat/completions"
LONGEST = 60


def say(text: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}]}


@pytest.fixture(scope="module")
def case() -> Iterator[Case]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        patch.setenv("PYTHONPATH", f"{FOLDER}:{ROOT}")
        with served(importlib.import_module("shout").ENGINE) as engine:
            yield Case(engine, PATH, say("hello there"), say("word " * 1000), streams=True)


class TestShout(Conformance):
    def test_it_shouts(self, case: Case) -> None:
        answer = case.engine.post(PATH, say("hello there")).json()
        assert answer["choices"][0]["message"]["content"] == "HELLO THERE"
        events = case.engine.events(PATH, say("hello there"))
        assert "".join(event["choices"][0]["delta"]["content"] for event in events) == "HELLO THERE "


def test_it_is_as_short_as_promised() -> None:
    code = (FOLDER / "shout.py").read_text().splitlines()
    assert sum(bool(line.strip()) for line in code) < LONGEST


def test_it_is_found_where_plug_ins_are(tmp_path: Path) -> None:
    """Installed the way pip does it: a folder with its files and the metadata."""
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*argv, "--target", str(tmp_path), str(FOLDER)], check=True, capture_output=True)
    code = "from inferq.engine import find_engine; print(sorted(find_engine('shout').endpoints))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        check=True,
        capture_output=True,
        text=True,
    )
    assert found.stdout.strip() == "['chat/completions']"
