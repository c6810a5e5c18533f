"""Files that bounds and hooks keep from becoming jobs: which of them wait, and which go into the error folder."""

import logging
import time

import pytest

from tests.hooks.conftest import Install, install
from tests.watchers.home import Site, listed, read_json, until

__all__ = ["install"]

GUARD = """
def before_accept(self, request):
    if request.body["prompt"] == "secret": raise Refused("that word is not let in", param="prompt")
    if request.body["prompt"] == "broken": raise ValueError("a hook that fails")
required = True
"""


@pytest.mark.parametrize("overrides", [{"queue": {"max_scheduled_jobs": 1}}])
async def test_no_room_for_scheduled_jobs_holds_up_no_other_file(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    later = time.time() + 3600
    async with site.watching():
        site.drop("a.json", run_at=later)
        await until(lambda: listed(site.folders.temp))
        site.drop("b.json", run_at=later)
        await until(lambda: "b.json waits" in caplog.text)
        site.drop("c.json")
        await until(lambda: len(listed(site.folders.temp)) == 2)
    assert listed(site.folders.inbox) == ["b.json"]
    assert "taking files" not in caplog.text


@pytest.mark.parametrize("overrides", [{"hooks": {"enabled": ["guard"]}}])
async def test_a_file_that_a_hook_refuses_goes_into_the_error_folder(
    site: Site, install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("guard", GUARD)
    async with site.watching():
        for prompt in ("broken", "secret", "good"):
            site.drop(f"{prompt}.json", prompt=prompt)
        await until(lambda: listed(site.folders.temp) and site.error("secret.error.json").exists())
        await until(lambda: "broken.json waits" in caplog.text)
    refusal = read_json(site.error("secret.error.json"))
    assert (refusal["code"], refusal["message"]) == ("refused_by_hook", "that word is not let in")
    assert listed(site.folders.inbox) == ["broken.json"]
    assert "could not be taken" not in caplog.text


@pytest.mark.parametrize("overrides", [{"tenants": {"files": {"requests_per_minute": 1}}}])
async def test_files_over_a_rate_wait_together_and_in_their_order(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("watchers.service.LONGEST_FULL", 0.2)
    async with site.watching():
        for name in ("a", "b", "c"):
            site.drop(f"{name}.json")
        await until(lambda: "all files wait" in caplog.text)
        assert listed(site.folders.inbox) == ["b.json", "c.json"]
        await site.redis.delete(f"{site.settings.queue.prefix}rate:files")
        await until(lambda: listed(site.folders.inbox) == ["c.json"])
    assert "could not be taken" not in caplog.text
    assert "come back in" not in caplog.text, "the same is said again with each try"
