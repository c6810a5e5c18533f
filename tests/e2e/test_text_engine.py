"""The text engine of our own behind the whole stack."""

from collections.abc import Iterator

import openai
import pytest

from tests.e2e.contract import FRANCE, TextContract, lesson
from tests.e2e.stack import Stack


class TestTextEngine(TextContract):
    @pytest.fixture
    def client(self, model_stack: Stack) -> Iterator[openai.OpenAI]:
        with model_stack.openai() as made:
            yield made

    @pytest.fixture
    def model(self) -> str:
        return "demo-chat"


def test_a_long_job_gives_the_same_answer(model_stack: Stack) -> None:
    job = model_stack.ended(model_stack.submit("demo-chat", FRANCE, body={"temperature": 0}))
    assert job["state"] == "succeeded"
    assert job["result"]["choices"][0]["message"]["content"] == lesson("prompts.json")[FRANCE]
