"""vLLM as it is, behind a stack of its own."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    model |= {"slots": 8, "fim": "qwen"}
    model |= {"options": {"enable_auto_tool_choice": True, "tool_call_parser": "hermes"}}
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


ANSWER = "The capital of France is Paris."
RESPONSE = {"model": MODEL, "input": FRANCE, "temperature": 0, "max_output_tokens": 50}
MESSAGE = {
    "model": MODEL,
    "messages": [{"role": "user", "content": FRANCE}],
    "temperature": 0,
    "max_tokens": 50,
}


def test_responses_whole_and_streamed(vllm_stack: Stack) -> None:
    with vllm_stack.openai() as client:
        whole = client.responses.create(**RESPONSE)
        assert (whole.output_text, whole.status) == (ANSWER, "completed")
        with client.responses.create(**RESPONSE, stream=True) as stream:
            events = list(stream)
        assert events[0].type == "response.created"
        assert events[-1].type == "response.completed"
        assert (
            "".join(event.delta for event in events if event.type == "response.output_text.delta") == ANSWER
        )
        cut = client.responses.create(**RESPONSE | {"max_output_tokens": 3})
        assert cut.status == "incomplete"
        with client.responses.create(**RESPONSE | {"max_output_tokens": 3}, stream=True) as stream:
            assert [event.type for event in stream][-1] in ("response.incomplete", "response.completed")


def test_messages_whole_and_streamed(vllm_stack: Stack) -> None:
    whole = vllm_stack.post("/v1/messages", MESSAGE).json()
    assert (whole["type"], whole["role"], whole["stop_reason"]) == ("message", "assistant", "end_turn")
    assert "".join(part["text"] for part in whole["content"]) == ANSWER
    with (
        vllm_stack.http() as client,
        client.stream("POST", "/v1/messages", json=MESSAGE | {"stream": True}) as stream,
    ):
        assert stream.status_code == 200
        blocks = stream.read().decode().strip().split("\n\n")
    events = [json.loads(block.partition("data: ")[2]) for block in blocks if block.startswith("event:")]
    assert (events[0]["type"], events[-1]["type"]) == ("message_start", "message_stop")
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(delta["text"] for delta in deltas) == ANSWER


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("responses", RESPONSE | {"input": "one two three four five " * 2000}),
        (
            "messages",
            MESSAGE | {"messages": [{"role": "user", "content": "one two three four five " * 2000}]},
        ),
    ],
)
def test_a_conversation_over_the_context_is_refused(
    vllm_stack: Stack, path: str, body: dict[str, Any], stream: bool
) -> None:
    response = vllm_stack.post(f"/v1/{path}", body | {"stream": stream})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("path", "body", "text_of"),
    [
        ("responses", RESPONSE, lambda result: result["output"][0]["content"][0]["text"]),
        ("messages", MESSAGE, lambda result: result["content"][0]["text"]),
    ],
)
def test_a_long_job_in_the_newer_forms(
    vllm_stack: Stack, path: str, body: dict[str, Any], text_of: Any
) -> None:
    response = vllm_stack.post("/v1/jobs", {"endpoint": path, "model": MODEL, "body": body})
    assert response.status_code == 202, response.text
    job = vllm_stack.ended(response.json()["id"])
    assert (job["state"], text_of(job["result"])) == ("succeeded", ANSWER)


def test_a_newer_form_is_folded_when_its_caller_has_left(vllm_stack: Stack) -> None:
    """A stream that goes on without its caller has the whole answer as its result."""
    for path, body in (("responses", RESPONSE), ("messages", MESSAGE)):
        kept = vllm_stack.http(**{"X-On-Disconnect": "keep"})
        with kept, kept.stream("POST", f"/v1/{path}", json=body | {"stream": True}) as stream:
            stream.read()
            job_id = stream.headers["x-job-id"]
        job = vllm_stack.ended(job_id)
        assert job["state"] == "succeeded"
        assert ANSWER in json.dumps(job["result"])
