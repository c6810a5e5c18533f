"""Endpoints that only some engines have: 404 for the others, also for those that are installed elsewhere."""

import pytest

from inferq import errors
from inferq.catalog import Catalog
from inferq.config import Settings
from inferq.endpoints import ENDPOINTS


def catalog(engine: str) -> Catalog:
    return Catalog(Settings.model_validate({"models": {"m": {"engine": engine, "source": "x"}}}))


@pytest.mark.parametrize("engine", ["text", "on-another-host"])
@pytest.mark.parametrize("path", ["responses", "messages"])
def test_what_an_engine_is_not_known_to_offer_is_not_found(engine: str, path: str) -> None:
    with pytest.raises(errors.NotFound, match=f"does not offer /v1/{path}"):
        catalog(engine).for_endpoint("m", ENDPOINTS[path])


def test_what_every_engine_of_a_type_has_needs_no_look_at_it() -> None:
    name, _ = catalog("on-another-host").for_endpoint("m", ENDPOINTS["chat/completions"])
    assert name == "m"


def test_what_an_engine_offers_is_found() -> None:
    assert catalog("vllm").for_endpoint("m", ENDPOINTS["responses"])[0] == "m"
