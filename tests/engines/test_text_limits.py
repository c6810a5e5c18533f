"""What no request may make the text engine do: run a caller's program, hang, or fill the memory."""

from typing import Any

import pytest

from tests.engines.conftest import chat
from tests.engines.process import EngineProcess

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def refusal(engine: EngineProcess, path: str, body: dict[str, Any]) -> tuple[int, str | None]:
    response = engine.post(path, body)
    assert response.status_code != 200, response.text[:200]
    return response.status_code, response.json()["error"]["param"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chat_template", "{{ 'a program of the caller' }}"),
        ("documents", [{"text": "x"}]),
        ("tools", []),
        ("tokenize", True),
        ("return_dict", True),
        ("add_generation_prompt", False),
        ("continue_final_message", True),
        ("tokenizer_kwargs", {}),
    ],
)
def test_a_template_gets_variables_and_nothing_else(text: EngineProcess, name: str, value: Any) -> None:
    body = chat("Say hello.", chat_template_kwargs={"enable_thinking": False, name: value}, max_tokens=1)
    assert refusal(text, CHAT, body) == (400, f"chat_template_kwargs.{name}")


def test_a_variable_of_the_template_may_be_set(text: EngineProcess) -> None:
    body = chat("Say hello.", chat_template_kwargs={"enable_thinking": False}, temperature=0)
    answer = text.post(CHAT, body).json()
    assert answer["choices"][0]["message"]["content"] == "Hello! I am a small demo model."
