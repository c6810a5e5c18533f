"""What people write becomes jobs."""

import json
from pathlib import Path
from typing import Any

import pytest

from inferq import errors
from inferq.cli import answer, job_file, submit

MODELS = [
    {"id": "chat", "info": {"type": "chat", "aliases": ["talk"]}},
    {"id": "vectors", "info": {"type": "embedding", "aliases": []}},
]
EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def complete(job: dict[str, Any], **chosen: str) -> dict[str, Any]:
    return job_file.complete(job, chosen, lambda: MODELS)


def test_text_is_a_prompt() -> None:
    assert job_file.parse("Hello\nthere\n", "f", "") == [
        {"body": {"messages": [{"role": "user", "content": "Hello\nthere"}]}}
    ]
    assert job_file.parse("Hello", "f", "embeddings") == [{"body": {"input": "Hello"}}]
    assert job_file.parse("Hello", "f", "completions") == [{"body": {"prompt": "Hello"}}]


@pytest.mark.parametrize("name", ["chat.json", "batch.jsonl", "{folder}/chat.jsn"])
def test_a_mistyped_file_is_no_prompt(name: str, tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigError, match="there is no file"):
        submit._read(name.format(folder=tmp_path), "")


@pytest.mark.parametrize("text", ["and/or", "Hello", "Is /tmp a folder?"])
def test_a_word_with_a_slash_may_be_a_prompt(text: str) -> None:
    (job,) = submit._read(text, "")
    assert job["body"]["messages"][0]["content"] == text


def test_object_without_body_is_the_body() -> None:
    (job,) = job_file.parse('{"model": "m", "priority": "low", "messages": [], "seed": 1}', "f", "")
    assert job == {"model": "m", "priority": "low", "body": {"messages": [], "seed": 1}}


def test_several_jobs_as_array_or_lines() -> None:
    jobs = [{"model": "m", "body": {"input": "a"}}, {"model": "m", "body": {"input": "b"}}]
    assert job_file.parse(json.dumps(jobs), "f", "") == jobs
    assert job_file.parse("\n".join(map(json.dumps, jobs)), "f", "") == jobs


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "f is empty"),
        ('{"a": 1}\n{"b": }', "f, line 2 is not valid JSON"),
        ("[1]", "f: job 1 is not a JSON object"),
    ],
)
def test_broken_file_is_refused_with_its_place(text: str, reason: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=reason):
        job_file.parse(text, "f", "")


def test_first_fitting_model_and_endpoint_are_found() -> None:
    chat = complete({"body": {"messages": []}})
    assert (chat["model"], chat["endpoint"]) == ("chat", "chat/completions")
    vectors = complete({"body": {"input": "x"}})
    assert (vectors["model"], vectors["endpoint"]) == ("vectors", "embeddings")
    text = complete({"body": {"prompt": "x"}})
    assert (text["model"], text["endpoint"]) == ("chat", "completions")


def test_command_line_wins_over_the_file() -> None:
    job = complete({"model": "m", "priority": "low", "body": {"messages": []}}, model="talk", priority="high")
    assert (job["model"], job["priority"], job["endpoint"]) == ("talk", "high", "chat/completions")


def test_no_fitting_model_is_named() -> None:
    with pytest.raises(errors.ModelNotFound, match="no model of type embedding"):
        job_file.complete({"body": {"input": "x"}}, {}, lambda: MODELS[:1])


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.json*")), ids=lambda path: path.name)
def test_examples_are_job_files(path: Path) -> None:
    for job in job_file.parse(path.read_text("utf-8"), path.name, ""):
        assert job["model"] in ("demo-chat", "demo-embed")
        assert job_file.complete(job, {}, lambda: MODELS)["endpoint"]


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"choices": [{"message": {"content": "Hi"}}]}, "Hi"),
        ({"choices": [{"text": "Hi"}, {"text": "Ho"}]}, "Hi\nHo"),
        (
            {
                "choices": [
                    {
                        "message": {
                            "content": None,
                            "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}],
                        }
                    }
                ]
            },
            "f({})",
        ),
        ({"object": "list", "data": [{"embedding": [0.5, 0.25]}]}, "[0.5000, 0.2500, ...] (2 numbers)"),
        ({"other": 1}, '{\n  "other": 1\n}'),
    ],
    ids=["chat", "completions", "tool", "embeddings", "other"],
)
def test_text_of_a_result(result: Any, text: str) -> None:
    assert answer.text_of(result) == text
