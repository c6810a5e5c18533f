"""Chains of models: which are refused at start-up, and which model a job goes to next."""

import json
from typing import Any

import pytest

from inferq.config import Settings
from inferq.fallback import Fallbacks
from inferq.job import JobSpec

MODELS: dict[str, dict[str, Any]] = {
    "big": {"engine": "text", "source": "big", "context": 4096},
    "small": {"engine": "text", "source": "small", "context": 64},
    "spare": {"engine": "text", "source": "spare", "context": 2048},
    "vectors": {"engine": "embed", "source": "v", "type": "embedding"},
}


def with_chains(**chains: list[str]) -> Settings:
    models = {name: {**model, "fallback": chains.get(name, [])} for name, model in MODELS.items()}
    return Settings.model_validate({"models": models, "request_defaults": {}})


SETTINGS = with_chains(big=["small", "spare"], spare=["big"])


def spec(text: str = "hello", **more: Any) -> JobSpec:
    body = {"model": "big", "messages": [{"role": "user", "content": text}], **more}
    return JobSpec(id="x", model="big", endpoint="chat/completions", body=json.dumps(body).encode())


async def test_the_next_model_that_can_serve_it() -> None:
    fallbacks = Fallbacks(SETTINGS)
    first = await fallbacks.reroute(spec(temperature=0.5), "big")
    assert first is not None
    assert first.model == "small"
    assert json.loads(first.body) == {**json.loads(spec(temperature=0.5).body), "model": "small"}
    assert first.units > 0
    second = await fallbacks.reroute(spec(), "small")
    assert second is not None
    assert second.model == "spare"
    assert await fallbacks.reroute(spec(), "spare") is None


async def test_a_model_that_cannot_serve_it_is_passed_over() -> None:
    found = await Fallbacks(SETTINGS).reroute(spec("word " * 300), "big")
    assert found is not None
    assert found.model == "spare"
    assert await Fallbacks(SETTINGS).reroute(spec("word " * 30_000), "big") is None


async def test_without_a_chain_there_is_no_next() -> None:
    assert await Fallbacks(with_chains()).reroute(spec(), "big") is None
    assert await Fallbacks(SETTINGS).reroute(spec(), "a model that is in no chain") is None


@pytest.mark.parametrize(
    ("chain", "why"),
    [
        (["nobody"], "no model 'nobody'"),
        (["vectors"], "of type embedding"),
        (["big"], "'big' was tried before"),
        (["small", "spare", "small"], "'small' was tried before"),
    ],
)
def test_chains_that_are_refused(chain: list[str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        with_chains(big=chain)
