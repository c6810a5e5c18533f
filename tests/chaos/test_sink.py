"""The suite's engine writes down what it does: who reads its book must see which runs are over."""

import json
import os
import sys
from pathlib import Path

import pytest

from inferq.testing import eventually
from inferq.testing.process import started
from tests.chaos import plugin
from tests.engines.process import ROOT


@pytest.mark.parametrize(("hooks", "how"), [("", "done"), ("!error", "failed")])
def test_each_run_that_is_over_has_an_end(short_dir: Path, hooks: str, how: str) -> None:
    """One without an end counts as lost with its engine."""
    book, address = short_dir / "sink.jsonl", short_dir / "s"
    path = f"{plugin.install(short_dir / 'plugin')}{os.pathsep}{ROOT}"
    argv = [
        sys.executable,
        "-m",
        plugin.NAME,
        "--model",
        "none",
        "--served-name",
        "sink",
        "--uds",
        str(address),
    ]
    argv += ["--slots", "1", "--options", "{}"]
    with started(
        argv, address, "sink", os.environ | {"PYTHONPATH": path, "CHAOS_SINK": str(book)}, ROOT
    ) as engine:
        eventually(engine.ready, "the sink is ready", 60)
        body = {"model": "sink", "messages": [{"role": "user", "content": f"#marker {hooks}"}]}
        engine.post("/v1/chat/completions", body)
    begin, end = [json.loads(line) for line in book.read_text().splitlines()]
    assert (begin["event"], begin["marker"]) == ("begin", "marker")
    assert (end["event"], end["run"], end["how"]) == ("end", begin["run"], how)
