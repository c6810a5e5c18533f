"""What is wrong with a request is said on the spot, with status, code and parameter."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.e2e.conftest import MAX_BODY, MAX_QUEUE
from tests.e2e.stack import Stack, chat
from tests.e2e.waiting import until

CHAT = "/v1/chat/completions"


def error_of(response: httpx2.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return dict(error)


@pytest.mark.parametrize("path", [CHAT, "/v1/jobs"])
def test_an_unknown_model_and_its_near_names(stack: Stack, path: str) -> None:
    error = error_of(stack.post(path, chat("hello", "wrods")), 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "'words'" in error["message"]


def test_a_body_that_is_no_json(stack: Stack) -> None:
    with stack.http() as http:
        error = error_of(http.post(CHAT, content=b'{"model": "fast", '), 400)
    assert "not valid JSON" in error["message"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": "hello"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "messages[0].role"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/jobs"])
def test_a_wrong_value_is_named(stack: Stack, path: str, change: dict[str, Any], param: str) -> None:
    error = error_of(stack.post(path, chat("hello", "fast") | change), 400)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


def test_what_the_engine_cannot_honour_is_refused(stack: Stack) -> None:
    error = error_of(stack.post(CHAT, chat("hello", "fast", logit_bias={"1": 5})), 400)
    assert (error["code"], error["param"]) == ("unsupported_parameter", "logit_bias")


def test_a_body_over_the_limit(stack: Stack) -> None:
    error = error_of(stack.post(CHAT, chat("x" * MAX_BODY, "fast")), 413)
    assert error["code"] == "body_too_large"
    assert str(MAX_BODY) in error["message"]


def test_no_key_and_a_wrong_key(stack: Stack) -> None:
    for headers in ({}, {"Authorization": "Bearer iq-nobody"}):
        with httpx2.Client(base_url=stack.url, timeout=60) as http:
            error = error_of(http.post(CHAT, json=chat("hello", "fast"), headers=headers), 401)
        assert error["code"] == "invalid_api_key"


def test_a_key_whose_role_is_too_low(stack: Stack) -> None:
    made = stack.post("/v1/keys", {"name": "onlooker", "role": "readonly"})
    assert made.status_code in (200, 201), made.text
    with httpx2.Client(
        base_url=stack.url, headers={"Authorization": f"Bearer {made.json()['key']}"}, timeout=60
    ) as http:
        assert error_of(http.post(CHAT, json=chat("hello", "fast")), 403)["code"] == "permission_denied"
        assert http.get("/v1/models").status_code == 200


def test_a_full_queue_says_when_to_come_back(stack: Stack) -> None:
    """One job holds the only slot, and as many wait as may; durable and interactive calls are refused alike."""
    held = stack.submit("gate", "!hang")
    try:
        stack.reaches(held, "running")
        with ThreadPoolExecutor(4) as pool:
            waiting = list(pool.map(lambda _: stack.submit("gate"), range(MAX_QUEUE)))
        for path in ("/v1/jobs", CHAT):
            refused = stack.post(path, chat("one more", "gate"))
            error = error_of(refused, 429)
            assert (error["code"], error["type"]) == ("queue_full", "rate_limit_error")
            assert 1 <= int(refused.headers["Retry-After"]) <= 60
        # Sent by several threads, so nobody knows who came last.
        assert sorted(stack.job(each)["position"] for each in waiting) == list(range(1, MAX_QUEUE + 1))
    finally:
        assert stack.post(f"/v1/jobs/{held}/cancel").json()["state"] == "cancelled"
    for job_id in waiting:
        assert stack.ended(job_id)["state"] == "succeeded"


def test_an_engine_error_reaches_the_caller_in_our_form(stack: Stack) -> None:
    """Tried as often as configured, then told."""
    error = error_of(stack.post(CHAT, chat("!error", "fast")), 502)
    assert error["code"] == "engine_crashed"
    assert "asked for an error" in error["message"]
    until(lambda: stack.ready("fast"), "the replica is still there")
