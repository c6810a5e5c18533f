"""vLLM as it is, behind a stack of its own."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.e2e.conftest import sections, stack_of
from tests.e2e.contract import FRANCE, TextContract, lesson
from tests.e2e.stack import Stack
from tests.engines.process import ROOT, demo_model

MODEL = "demo-chat-vllm"
pytestmark = [pytest.mark.vllm, pytest.mark.slow]


def interpreter() -> str:
    python = Path(os.environ.get("INFERQ_VLLM_PYTHON", ROOT / ".venv-vllm" / "bin" / "python"))
    if not python.exists():
        pytest.skip(f"no vLLM environment at {python} (see INFERQ_VLLM_PYTHON)")
    return str(python)


@pytest.fixture(scope="module")
def vllm_stack() -> Iterator[Stack]:
    model = {"engine": "vllm", "source": str(demo_model("demo-chat")), "type": "chat", "warm": True}
    model |= {"slots": 8, "options": {"enable_auto_tool_choice": True, "tool_call_parser": "hermes"}}
    tree = sections() | {"engines": {"vllm": {"python": interpreter()}}, "models": {MODEL: model}}
    with tempfile.TemporaryDirectory(prefix="iq-vllm-") as name, stack_of(tree, Path(name)) as stack:
        stack.until_ready(MODEL, within=240)
        yield stack


class TestVllm(TextContract):
    @pytest.fixture
    def client(self, vllm_stack: Stack) -> Iterator[openai.OpenAI]:
        with vllm_stack.openai() as made:
            yield made

    @pytest.fixture
    def model(self) -> str:
        return MODEL


def test_a_long_job_gives_the_same_answer(vllm_stack: Stack) -> None:
    job = vllm_stack.ended(vllm_stack.submit(MODEL, FRANCE, body={"temperature": 0}))
    assert (job["state"], job["attempt"]) == ("succeeded", 1)
    assert job["result"]["choices"][0]["message"]["content"] == lesson("prompts.json")[FRANCE]
