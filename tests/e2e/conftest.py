"""One real stack for all tests of this folder that do not bring their own."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.stack import LEASE, Stack
from tests.engines.process import demo_model, engines_python

THINKING = {"start": "<think>", "end": "</think>"}
TEXT = {"engine": "text", "type": "chat", "warm": True, "slots": 8, "context": 2048, "fim": "qwen"}
MAX_BODY = 256 * 1024
MAX_QUEUE = 30
WARM = ("fast", "words", "gate")

# The engine of the model `moody` does not start before the file `mood` is there.
_INTERPRETER = """#!/bin/sh
case "$*" in *"--served-name moody"*)
  [ -e "{folder}/mood" ] || {{ echo "not in the mood" >&2; exit 7; }};;
esac
exec "{python}" "$@"
"""


pytest.register_assert_rewrite("tests.e2e.contract")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(300))


def sections() -> dict[str, Any]:
    """What every stack here has in common."""
    return {
        "queue": {"lease": LEASE, "max_queue_size": MAX_QUEUE},
        "api": {"max_body": MAX_BODY},
        "processing": {"drain_timeout": 2.0},
        "monitoring": {"flower_enabled": False},
    }


def noop(**more: Any) -> dict[str, Any]:
    return {"engine": "noop", "source": "none", "type": "chat", **more}


@contextmanager
def stack_of(tree: dict[str, Any], folder: Path, environ: dict[str, str] | None = None) -> Iterator[Stack]:
    stack = Stack(folder / "home", tree)
    stack.environ |= environ or {}
    try:
        stack.boot()
        yield stack
    finally:
        stack.end()


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="iq-e2e-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def mood(folder: Path) -> Path:
    """The file without which the model `moody` cannot be loaded."""
    return folder / "mood"


@pytest.fixture(scope="session")
def whole_stack(folder: Path) -> Iterator[Stack]:
    interpreter = folder / "python"
    interpreter.write_text(_INTERPRETER.format(folder=folder, python=sys.executable))
    interpreter.chmod(0o755)
    tree = sections() | {
        "engines": {"noop": {"python": str(interpreter)}},
        "models": {
            "fast": noop(warm=True, aliases=["quick"]),
            # About two seconds of stream for forty words.
            "words": noop(warm=True, slots=4, options={"tokens": 40, "token_interval_s": 0.05}),
            "gate": noop(warm=True, slots=1),
            "lazy": noop(options={"load_s": 1.5}),
            "moody": noop(),
        },
    }
    with stack_of(tree, folder) as stack:
        # It takes a while to fail, and nobody should wait for that.
        stack.first_moody = stack.submit("moody")
        yield stack


@pytest.fixture
def stack(whole_stack: Stack, request: pytest.FixtureRequest) -> Stack:
    """The stack with its warm models ready, whatever the test before did to it."""
    whole_stack.until_ready(*WARM)
    return whole_stack


@pytest.fixture(scope="session")
def model_stack() -> Iterator[Stack]:
    """A stack with our own engines and the models that were made for them."""
    chat, embed = demo_model("demo-chat"), demo_model("demo-embed")
    tree = sections() | {
        "engines": {name: {"python": engines_python()} for name in ("text", "embed")},
        "models": {
            "demo-chat": TEXT | {"source": str(chat)},
            "demo-thinker": TEXT | {"source": str(chat), "options": {"reasoning": THINKING}},
            "demo-embed": {"engine": "embed", "source": str(embed), "type": "embedding", "warm": True},
        },
    }
    with tempfile.TemporaryDirectory(prefix="iq-e2e-") as name, stack_of(tree, Path(name)) as stack:
        stack.until_ready("demo-chat", "demo-thinker", "demo-embed")
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with stack.openai() as made:
        yield made
