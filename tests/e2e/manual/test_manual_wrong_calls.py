"""The manual's table of errors, the object that each of them is, and its advice for trying again."""

import random
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import httpx2
import openai
import pytest

from tests.e2e.contract import said
from tests.e2e.manual.conftest import MAX_QUEUE
from tests.e2e.manual.names import CHAT, EMBEDDER, FILMER, LISTENER, PAINTER, RERANKER, SPEAKER
from tests.e2e.stack import Stack

T = TypeVar("T")
QUESTION = {"model": CHAT, "messages": said("Say hello."), "temperature": 0}
FILM = {"model": FILMER, "prompt": "a red cat", "duration": 1, "resolution": "64x64"}


def error_of(response: httpx2.Response, status: int) -> dict[str, Any]:
    """The error object, which has the same keys whatever went wrong."""
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error = dict(response.json()["error"])
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"]
    return error


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("chat/completions", QUESTION | {"temperature": "warm"}, "temperature"),
        ("chat/completions", QUESTION | {"messages": []}, "messages"),
        ("chat/completions", QUESTION | {"presence_penalty": 3}, "presence_penalty"),
        ("chat/completions", {"model": CHAT}, "messages"),
        ("completions", {"model": CHAT, "prompt": "x", "max_tokens": 0}, "max_tokens"),
        ("images/generations", {"model": PAINTER, "prompt": "red", "batch_size": "two"}, "batch_size"),
        ("audio/speech", {"model": SPEAKER, "input": "x", "response_format": "midi"}, "response_format"),
        ("audio/speech", {"model": SPEAKER, "input": "x", "speed": 9}, "speed"),
        ("audio/transcriptions", {"model": LISTENER}, "file"),
        ("embeddings", {"model": EMBEDDER, "input": []}, "input"),
        ("rerank", {"model": RERANKER, "query": "x"}, "documents"),
        ("video/generations", FILM | {"duration": "long"}, "duration"),
        ("chat/completions", {"model": EMBEDDER, "messages": said("x")}, "model"),
    ],
)
def test_400_a_wrong_parameter_is_named(
    http: httpx2.Client, path: str, body: dict[str, Any], param: str
) -> None:
    error = error_of(http.post(path, json=body), 400)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer xxxx"}, {"Authorization": "Basic eHg6eHg="}]
)
def test_401_no_key_or_a_wrong_one(stack: Stack, headers: dict[str, str]) -> None:
    with httpx2.Client(base_url=stack.url, timeout=60) as stranger:
        response = stranger.post("/openai/v1/chat/completions", json=QUESTION, headers=headers)
    assert error_of(response, 401)["type"] == "authentication_error"


@pytest.mark.parametrize("path", ["chat/completions", "completions", "embeddings"])
def test_404_a_model_that_is_not_there(http: httpx2.Client, path: str) -> None:
    body = QUESTION | {"model": "Qwen2.5-7B-Instrukt", "prompt": "x", "input": "x"}
    error = error_of(http.post(path, json=body), 404)
    assert error["code"] == "model_not_found"
    assert CHAT in error["message"]


def emptied(http: httpx2.Client, jobs: list[str]) -> None:
    for each in reversed(jobs):
        assert http.post(f"jobs/{each}/cancel").json()["state"] in ("cancelled", "succeeded")


@pytest.fixture
def crowd(http: httpx2.Client, stack: Stack) -> Iterator[list[str]]:
    """One long film holds the only slot, and as many wait as may; their jobs."""
    jobs = [http.post("video/generations", json=FILM | {"duration": 6, "steps": 1000}).json()["id"]]
    stack.reaches(jobs[0], "running", within=120)
    few = FILM | {"steps": 1}
    jobs += [http.post("video/generations", json=few).json()["id"] for _ in range(MAX_QUEUE)]
    yield jobs
    emptied(http, jobs)
    stack.ended(jobs[0])


def test_429_too_many_wait(http: httpx2.Client, stack: Stack, crowd: list[str]) -> None:
    """One more is refused, and told when to come back."""
    refused = http.post("video/generations", json=FILM)
    error = error_of(refused, 429)
    assert (error["code"], error["type"]) == ("queue_full", "rate_limit_error")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert [stack.job(each)["position"] for each in crowd[1:]] == list(range(1, MAX_QUEUE + 1))


def with_retries(call: Callable[[], T], tries: int = 3, pause: float = 1.0) -> T:
    """The manual's helper: the pause doubles, and a random part keeps callers from coming back together."""
    for attempt in range(tries):
        try:
            return call()
        except openai.APIStatusError as error:
            if attempt == tries - 1:
                raise
            asked = float(error.response.headers.get("Retry-After", 0))
            time.sleep(max(asked, pause * 2**attempt) * random.uniform(0.5, 1))
    raise AssertionError


def test_trying_again_succeeds_once_there_is_room(
    client: openai.OpenAI, http: httpx2.Client, stack: Stack, crowd: list[str]
) -> None:
    """The first try is refused, then those that waited leave; the second try is accepted."""
    tries = []

    def film() -> Any:
        tries.append(time.monotonic())
        try:
            return client.post("/video/generations", body=FILM | {"steps": 1}, cast_to=object)
        except openai.RateLimitError:
            emptied(http, crowd)
            raise

    accepted = with_retries(film)
    assert len(tries) == 2
    assert stack.ended(accepted["id"])["state"] == "succeeded"


def test_an_exception_says_what_went_wrong(client: openai.OpenAI) -> None:
    try:
        client.chat.completions.create(model="nobody", messages=said("Hello"))
    except openai.NotFoundError as error:
        assert "nobody" in str(error)
        assert (error.code, error.param) == ("model_not_found", "model")
    else:
        pytest.fail("there is no such model")


def test_a_path_that_is_none(http: httpx2.Client) -> None:
    assert error_of(http.get("profilers"), 404)["code"] == "unknown_url"
    assert error_of(http.get("chat/completions"), 405)["code"] == "method_not_allowed"
