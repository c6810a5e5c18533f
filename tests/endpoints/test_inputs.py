"""Results of other jobs as parts of a request: where they are found, and what comes there."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from inferq import errors, inputs
from inferq.job import Job, JobSpec, JobState

# Fixed: they are parts of the tests' names, which must be the same in each process that collects them.
A, B = "0199a7c0-0000-7000-8000-00000000000a", "0199a7c0-0000-7000-8000-00000000000b"
ANSWER = {"choices": [{"message": {"content": "Hi"}}], "usage": {"n": 3}, "": 1}


def done(result: bytes | None, **more: Any) -> Job:
    spec = JobSpec(id=A, model="m", endpoint="chat/completions", body=b"{}")
    return Job(spec=spec, state=JobState.SUCCEEDED, result=result, **more)


def test_places_are_found_wherever_they_are() -> None:
    body = {
        "prompt": "{{jobs.0.choices.0.message.content}}",
        "messages": [{"content": [{"text": f"{{{{jobs.{B}}}}}"}]}, {"content": "plain"}],
        "n": 3,
    }
    found = [(place.param, place.job_id, place.path) for place in inputs.places(body, (A, B))]
    assert found == [
        ("prompt", A, ("choices", "0", "message", "content")),
        ("messages[0].content[0].text", B, ()),
    ]


@pytest.mark.parametrize(
    "text", ["say {{jobs.0}}", "{{jobs.0}} again", "{{job.0}}", "{{ jobs.0 }}", "{{jobs.0", "jobs.0"]
)
def test_a_text_that_is_more_or_other_is_left_alone(text: str) -> None:
    assert inputs.places({"a": text}, (A,)) == []


@pytest.mark.parametrize(
    "text",
    [
        "{{jobs.1}}",
        "{{jobs.-1}}",
        "{{jobs.}}",
        "{{jobs.²}}",
        "{{jobs.0000}}",
        "{{jobs.#0}}",
        "{{jobs." + B + "}}",
    ],
)
def test_only_jobs_that_are_waited_for_can_be_named(text: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="names no job in 'depends_on'") as caught:
        inputs.places({"a": [text]}, (A,))
    assert caught.value.param == "a[0]"


@pytest.mark.parametrize("text", ["{{jobs.0.}}", "{{jobs.0.a..b}}"])
def test_a_path_has_no_empty_parts(text: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="empty part"):
        inputs.places({"a": text}, (A,))


def test_nesting_has_no_bound() -> None:
    body: dict[str, Any] = {"a": "{{jobs.0}}"}
    for _ in range(100_000):
        body = {"a": [body]}
    assert len(inputs.places(body, (A,))) == 1


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("choices.0.message.content", "Hi"),
        ("choices.0.message", {"content": "Hi"}),
        ("usage.n", 3),
        ("choices", ANSWER["choices"]),
    ],
)
def test_a_part_is_what_the_path_leads_to(path: str, part: Any) -> None:
    assert inputs.Result(done(orjson.dumps(ANSWER))).part(path.split(".")) == part


def test_the_whole_result_is_json_text_or_a_file() -> None:
    assert inputs.Result(done(orjson.dumps(ANSWER))).part(()) == ANSWER
    assert inputs.Result(done("Grüße".encode(), result_type="text/plain")).part(()) == "Grüße"
    picture = inputs.Result(done(None, artifact="a" * 64, result_type="image/png"))
    assert picture.part(()) == "artifact:" + "a" * 64


def test_a_result_in_a_file_is_read_for_a_part_of_it() -> None:
    job = done(None, artifact="a" * 64)
    assert inputs.needs_file(job, ("usage",))
    assert not inputs.needs_file(job, ())
    assert not inputs.needs_file(replace(job, result_type="image/png"), ("usage",))
    result = inputs.Result(job, orjson.dumps(ANSWER))
    assert result.part(("usage", "n")) == 3
    assert result.part(()) == "artifact:" + "a" * 64


@pytest.mark.parametrize(
    ("job", "path", "told"),
    [
        (done(orjson.dumps(ANSWER)), "choices.1", "no '1' at choices, but a list of 1"),
        (done(orjson.dumps(ANSWER)), "choices.x", "no 'x' at choices"),
        (done(orjson.dumps(ANSWER)), "text", "no 'text' at its top, but an object with choices, usage"),
        (done(orjson.dumps(ANSWER)), "usage.n.x", "no object and no list"),
        (done(b"plain", result_type="text/plain"), "text", "text/plain, which has no parts"),
        (done(None, artifact="a" * 64, result_type="image/png"), "data", "image/png, which has no parts"),
        (done(None), "", "was not kept"),
        (done(b"{"), "", "is no JSON"),
        (replace(done(None), state=JobState.FAILED), "", "is failed and has no result"),
    ],
)
def test_a_part_that_is_not_there_is_said_to_be_missing(job: Job, path: str, told: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=told):
        inputs.Result(job).part(path.split(".") if path else ())


def test_places_are_bounded() -> None:
    body = {"input": ["{{jobs.0}}"] * inputs.MOST_PLACES}
    assert len(inputs.places(body, (A,))) == inputs.MOST_PLACES
    body["input"].append("{{jobs.0}}")
    with pytest.raises(errors.InvalidRequest, match="in more than 1000 places"):
        inputs.places(body, (A,))


def test_parts_are_put_into_their_places_until_there_is_no_room() -> None:
    texts = ("{{jobs.0.text}}", "{{jobs.0.n}}", "{{jobs.0.text}}", "{{jobs.0.text}}")
    body = [{"input": text} for text in texts]
    job = done(orjson.dumps({"text": "x" * 98, "n": 3}))
    found = inputs.places(body, (A,))
    assert inputs.fill(found[:3], job, room=201) == 201
    with pytest.raises(errors.InvalidRequest, match="larger than requests may be") as caught:
        inputs.fill(found[3:], job, room=99)
    assert caught.value.param == "[3].input"
    assert [part["input"] for part in body] == ["x" * 98, 3, "x" * 98, "{{jobs.0.text}}"]
