"""The conformance suite: what every engine on our base must do, whatever it runs."""

from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from inferq.testing.process import RunningEngine, eventually

CANCEL_SECONDS = 1.0


@dataclass
class Case:
    """One engine under test: where it answers, and bodies that it answers with 200.

    `long` runs long enough to be left in the middle; `streams` says whether it can be streamed. `media` is the type of
    a whole answer: only JSON has a place for the model's name.
    """

    engine: RunningEngine
    path: str
    body: dict[str, Any]
    long: dict[str, Any]
    streams: bool
    media: str = "application/json"


def error_of(response: httpx2.Response) -> dict[str, str]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return dict(error)


class Conformance:
    """Derive from it, and give a fixture `case`."""

    def test_health_says_ready_and_what_it_holds(self, case: Case) -> None:
        health = case.engine.health()
        assert health["status"] == "ready"
        assert health["pid"] == case.engine.process.pid
        assert health["memory_bytes"] > 10_000_000

    def test_models_lists_the_public_name(self, case: Case) -> None:
        assert [model["id"] for model in case.engine.get("/v1/models").json()["data"]] == [case.engine.name]

    def test_answers_with_the_public_name(self, case: Case) -> None:
        response = case.engine.post(case.path, case.body | {"model": case.engine.name})
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == case.media
        if case.media == "application/json":
            assert response.json()["model"] == case.engine.name

    def test_refuses_another_model(self, case: Case) -> None:
        response = case.engine.post(case.path, case.body | {"model": "somebody-else"})
        assert (response.status_code, error_of(response)["code"]) == (404, "model_not_found")

    def test_refuses_an_unknown_field_by_name(self, case: Case) -> None:
        response = case.engine.post(case.path, case.body | {"fancy_new_field": 1})
        error = error_of(response)
        assert (response.status_code, error["code"], error["param"]) == (
            400,
            "unsupported_parameter",
            "fancy_new_field",
        )

    @pytest.mark.parametrize(
        "field", [{"user": "u"}, {"metadata": {"a": "b"}}, {"store": False}, {"fancy": None}]
    )
    def test_accepts_fields_that_ask_for_nothing(self, case: Case, field: dict[str, object]) -> None:
        assert case.engine.post(case.path, case.body | field).status_code == 200

    def test_refuses_to_store(self, case: Case) -> None:
        assert error_of(case.engine.post(case.path, case.body | {"store": True}))["param"] == "store"

    def test_a_wrong_type_names_its_field(self, case: Case) -> None:
        response = case.engine.post(case.path, case.body | {"model": 7})
        assert (response.status_code, error_of(response)["param"]) == (400, "model")

    def test_a_body_that_is_no_json_object(self, case: Case) -> None:
        with case.engine.client() as client:
            broken = client.post(case.path, content=b"{nonsense")
            array = client.post(case.path, content=b"[]")
        assert (broken.status_code, error_of(broken)["code"]) == (400, "invalid_json")
        assert array.status_code == 400

    def test_unknown_path(self, case: Case) -> None:
        response = case.engine.post("/v1/nothing", {})
        assert (response.status_code, error_of(response)["code"]) == (404, "unknown_url")

    def test_a_caller_who_leaves_frees_the_engine(self, case: Case) -> None:
        """Not streamed: nothing is written before the end, so only the closed connection tells."""
        with case.engine.sent(case.path, case.long, "left"):
            eventually(lambda: "left" in case.engine.running(), "listed while it runs")
        eventually(lambda: "left" not in case.engine.running(), "released", CANCEL_SECONDS)
        assert case.engine.post(case.path, case.body).status_code == 200

    def test_a_caller_who_leaves_a_stream_frees_the_engine(self, case: Case) -> None:
        if not case.streams:
            assert (
                case.engine.post(case.path, case.body | {"stream": True}).json()["error"]["param"] == "stream"
            )
            return
        body = case.long | {"stream": True}
        headers = {"x-request-id": "left-stream"}
        with (
            case.engine.client() as client,
            client.stream("POST", case.path, json=body, headers=headers) as response,
        ):
            first = next(response.iter_bytes())
            assert first.startswith((b"data: ", b"event: "))
        eventually(lambda: not case.engine.running(), "released", CANCEL_SECONDS)
