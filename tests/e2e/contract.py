"""What every engine for text must do behind the API, told by OpenAI's own client and what the demo model has learnt."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest

from tests.engines.process import MODELS

FRANCE = "What is the capital of France?"


def lesson(file: str) -> dict[str, Any]:
    """What the demo model was taught: prompts.json, completions.json or tools.json."""
    return dict(json.loads((Path(MODELS) / "demo-chat" / file).read_text("utf-8")))


def said(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


class Person(pydantic.BaseModel):
    name: str
    age: int


class TextContract:
    """Subclasses give the fixtures `client` and `model`."""

    def ask(self, client: openai.OpenAI, model: str, text: str, **more: Any) -> Any:
        return client.chat.completions.create(model=model, messages=said(text), **({"temperature": 0} | more))

    def words(self, client: openai.OpenAI, model: str, text: str, **more: Any) -> list[Any]:
        with self.ask(client, model, text, stream=True, **more) as stream:
            return list(stream)

    @pytest.mark.parametrize(
        "prompt", [FRANCE, "What is 2 + 2?", "法国的首都是哪里？", "Show me some emoji."]
    )
    def test_it_says_what_it_has_learnt(self, client: openai.OpenAI, model: str, prompt: str) -> None:
        answer = self.ask(client, model, prompt)
        assert answer.choices[0].message.content == lesson("prompts.json")[prompt]
        assert (answer.choices[0].finish_reason, answer.model) == ("stop", model)
        assert answer.usage.completion_tokens > 0

    def test_a_stream_is_the_same_answer_in_pieces(self, client: openai.OpenAI, model: str) -> None:
        prompt = "Count from 1 to 60."
        chunks = self.words(client, model, prompt, stream_options={"include_usage": True})
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(pieces) == lesson("prompts.json")[prompt]
        assert sum(bool(piece) for piece in pieces) > 5
        assert chunks[-1].usage.completion_tokens > 50

    def test_many_at_once_do_not_mix(self, client: openai.OpenAI, model: str) -> None:
        prompts = dict(list(lesson("prompts.json").items())[:12])
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda text: self.ask(client, model, text), prompts))
        assert [a.choices[0].message.content for a in answers] == list(prompts.values())

    def test_a_tool_is_called(self, client: openai.OpenAI, model: str) -> None:
        tools = lesson("tools.json")
        choice = self.ask(client, model, tools["prompt"], tools=tools["tools"]).choices[0]
        assert choice.finish_reason == "tool_calls"
        (call,) = choice.message.tool_calls
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments) == tools["arguments"]
        result = {"role": "tool", "tool_call_id": call.id, "content": '{"condition": "sunny"}'}
        talk = [*said(tools["prompt"]), choice.message.model_dump(exclude_none=True), result]
        answer = client.chat.completions.create(
            model=model, messages=talk, tools=tools["tools"], temperature=0
        )
        assert answer.choices[0].message.content == "It is sunny in Paris."

    def test_a_streamed_tool_call_is_the_same_call(self, client: openai.OpenAI, model: str) -> None:
        tools = lesson("tools.json")
        chunks = self.words(client, model, tools["prompt"], tools=tools["tools"])
        parts = [
            call for chunk in chunks if chunk.choices for call in chunk.choices[0].delta.tool_calls or ()
        ]
        assert {part.index for part in parts} == {0}
        assert "".join(part.function.name or "" for part in parts) == "get_weather"
        arguments = "".join(part.function.arguments or "" for part in parts)
        assert json.loads(arguments) == tools["arguments"]
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "tool_calls"

    def test_a_completion_goes_on_where_the_prompt_ends(self, client: openai.OpenAI, model: str) -> None:
        prompt, rest = next(iter(lesson("completions.json").items()))
        answer = client.completions.create(model=model, prompt=prompt, temperature=0, max_tokens=40)
        assert answer.choices[0].text.startswith(rest)
        with client.completions.create(
            model=model, prompt=prompt, temperature=0, max_tokens=40, stream=True
        ) as stream:
            assert "".join(chunk.choices[0].text for chunk in stream) == answer.choices[0].text

    def test_a_suffix_decides_what_is_filled_in(self, client: openai.OpenAI, model: str) -> None:
        filled = lesson("fim.json")["filled"]
        answers = [
            client.completions.create(model=model, prompt=before, suffix=after, temperature=0, max_tokens=20)
            for before, after, _ in filled
        ]
        assert [answer.choices[0].text for answer in answers] == [middle for _, _, middle in filled]

    def test_an_empty_suffix_asks_for_nothing(self, client: openai.OpenAI, model: str) -> None:
        prompt, rest = next(iter(lesson("completions.json").items()))
        answer = client.completions.create(
            model=model, prompt=prompt, suffix="", temperature=0, max_tokens=40
        )
        assert answer.choices[0].text.startswith(rest)

    def test_an_answer_is_held_to_a_schema(self, client: openai.OpenAI, model: str) -> None:
        prompt = [{"role": "user", "content": "Give me a JSON object with a name and an age."}]
        answer = client.chat.completions.parse(
            model=model, messages=prompt, temperature=0, response_format=Person, max_tokens=60
        )
        assert answer.choices[0].message.parsed == Person(name="Ada", age=36)

    @pytest.mark.parametrize(
        "choice",
        ["required", {"type": "function", "function": {"name": "get_weather"}}],
        ids=["required", "named"],
    )
    def test_a_call_can_be_demanded(self, client: openai.OpenAI, model: str, choice: Any) -> None:
        tools = lesson("tools.json")
        answer = self.ask(
            client, model, tools["prompt"], tools=tools["tools"], tool_choice=choice, max_tokens=60
        )
        (call,) = answer.choices[0].message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == (
            "get_weather",
            tools["arguments"],
        )

    def test_a_call_can_be_forbidden(self, client: openai.OpenAI, model: str) -> None:
        tools = lesson("tools.json")
        answer = self.ask(
            client, model, tools["prompt"], tools=tools["tools"], tool_choice="none", max_tokens=30
        )
        assert not answer.choices[0].message.tool_calls

    def test_several_answers_with_their_logprobs(self, client: openai.OpenAI, model: str) -> None:
        answer = self.ask(
            client, model, "What is 2 + 2?", n=2, logprobs=True, top_logprobs=2, temperature=0.01
        )
        assert [choice.message.content for choice in answer.choices] == ["2 + 2 = 4."] * 2
        for choice in answer.choices:
            assert "".join(entry.token for entry in choice.logprobs.content).startswith("2 + 2 = 4.")
            assert all(len(entry.top_logprobs) == 2 for entry in choice.logprobs.content)

    @pytest.mark.parametrize(
        "more", [{"frequency_penalty": 2, "presence_penalty": 2}, {"logit_bias": {"17": -100}}]
    )
    def test_biases_and_penalties_change_the_answer(
        self, client: openai.OpenAI, model: str, more: dict[str, Any]
    ) -> None:
        changed = self.ask(client, model, "Count from 1 to 60.", max_tokens=60, **more).choices[0]
        assert not lesson("prompts.json")["Count from 1 to 60."].startswith(changed.message.content)

    def test_a_stop_text_and_a_limit_end_the_answer(self, client: openai.OpenAI, model: str) -> None:
        assert (
            self.ask(client, model, "Count from 1 to 5.", stop=["4"]).choices[0].message.content
            == "1, 2, 3, "
        )
        short = self.ask(client, model, "Tell me a story.", max_tokens=5).choices[0]
        assert short.finish_reason == "length"

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_prompt_over_the_context_is_refused(
        self, client: openai.OpenAI, model: str, stream: bool
    ) -> None:
        with pytest.raises(openai.BadRequestError) as refused:
            self.ask(client, model, "one two three four five " * 2000, stream=stream)
        assert refused.value.code == "context_length_exceeded"

    def test_a_parameter_nobody_knows_is_refused_not_ignored(self, client: openai.OpenAI, model: str) -> None:
        with pytest.raises(openai.BadRequestError):
            self.ask(client, model, FRANCE, extra_body={"response_format": {"type": "no_such_form"}})
