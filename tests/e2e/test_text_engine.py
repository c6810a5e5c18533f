"""The text engine of our own behind the whole stack."""

import pytest

from tests.e2e.contract import FRANCE, TextContract, lesson
from tests.e2e.stack import Stack


class TestTextEngine(TextContract):
    @pytest.fixture
    def model(self, stack: Stack) -> str:
        stack.until_ready("demo-chat")
        return "demo-chat"


def test_a_long_job_gives_the_same_answer(stack: Stack) -> None:
    stack.until_ready("demo-chat")
    job = stack.ended(stack.submit("demo-chat", FRANCE, body={"temperature": 0}))
    assert job["state"] == "succeeded"
    assert job["result"]["choices"][0]["message"]["content"] == lesson("prompts.json")[FRANCE]
