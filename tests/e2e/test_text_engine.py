"""The text engine of our own behind the whole stack."""

from collections.abc import Iterator
from typing import Any

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

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_thought_comes_beside_the_answer(self, client: openai.OpenAI, stream: bool) -> None:
        (prompt,) = lesson("thinking.json")["prompts"]
        if stream:
            chunks = self.words(client, "demo-thinker", prompt)
            deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
            thought = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
            content = "".join(delta.content or "" for delta in deltas)
        else:
            message = self.ask(client, "demo-thinker", prompt).choices[0].message
            thought, content = message.reasoning_content, message.content
        assert (thought, content) == (lesson("thinking.json")["thought"], "3 + 4 = 7.")


def test_a_long_job_gives_the_same_answer(model_stack: Stack) -> None:
    job = model_stack.ended(model_stack.submit("demo-chat", FRANCE, body={"temperature": 0}))
    assert job["state"] == "succeeded"
    assert job["result"]["choices"][0]["message"]["content"] == lesson("prompts.json")[FRANCE]


@pytest.mark.parametrize("path", ["responses", "messages"])
def test_what_the_engine_does_not_offer_is_told(model_stack: Stack, path: str) -> None:
    body = {
        "model": "demo-chat",
        "input": FRANCE,
        "max_tokens": 5,
        "messages": [{"role": "user", "content": FRANCE}],
    }
    response = model_stack.post(f"/v1/{path}", body)
    assert response.status_code == 404
    error = response.json()["error"]
    assert error["message"] == f"The engine 'text' of the model 'demo-chat' does not offer /v1/{path}."
    assert (error["code"], error["param"]) == ("not_found", "model")


def test_a_thought_is_in_the_result_of_a_long_job(model_stack: Stack) -> None:
    (prompt,) = lesson("thinking.json")["prompts"]
    job = model_stack.ended(model_stack.submit("demo-thinker", prompt, body={"temperature": 0}))
    message = job["result"]["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == (
        "3 + 4 = 7.",
        lesson("thinking.json")["thought"],
    )


def test_a_proxy_serves_any_name_within_its_context(model_stack: Stack) -> None:
    url = f"{model_stack.url}/openai/demo-chat:1k/v1"
    with model_stack.openai().with_options(base_url=url) as client:
        messages: Any = [{"role": "user", "content": FRANCE}]
        answer = client.chat.completions.create(model="gpt-4o", messages=messages, temperature=0)
        assert answer.choices[0].message.content == lesson("prompts.json")[FRANCE]
        with pytest.raises(openai.BadRequestError) as refused:
            client.completions.create(model="gpt-4o", prompt=[5] * 1024)
        assert refused.value.code == "context_length_exceeded"
