"""Webhooks over HTTP: named with a job, listed, sent again, tested."""

from pathlib import Path

import orjson
import pytest

from inferq import webhooks
from inferq.config import Settings
from inferq.job import new_job_id
from tests.api.stack import CHAT, Replica, Stack, recorded, serving, settings_for

URL = "https://hooks.example/inferq"


async def test_a_job_that_has_ended_makes_a_message(
    stack: Stack, replica: Replica, settings: Settings
) -> None:
    job_id = await stack.submit(webhook=URL)
    header = await stack.post("/v1/chat/completions", CHAT, prefer="respond-async", x_webhook=URL)
    assert header.json()["webhook"] == URL
    for _ in range(2):
        attempt = await replica.answer_one()
        assert b"webhook" not in attempt.job.spec.body
    await recorded(settings, stack.context)
    page = (await stack.get("/v1/webhooks/deliveries")).json()
    assert [each["subject"] for each in page["data"]] == [header.json()["id"], job_id]
    (one,) = (await stack.get(f"/v1/webhooks/deliveries?job={job_id}&state=waiting")).json()["data"]
    assert one == {**one, "type": "job.succeeded", "url": URL, "state": "waiting", "attempts": 0}
    assert (await stack.get(f"/v1/webhooks/deliveries/{one['id']}")).json() == one
    assert (await stack.get("/v1/webhooks/deliveries?state=delivered")).json()["data"] == []
    first = (await stack.get("/v1/webhooks/deliveries?limit=1")).json()
    assert first["has_more"]
    rest = await stack.get(f"/v1/webhooks/deliveries?cursor={first['next_cursor']}")
    assert [each["id"] for each in rest.json()["data"]] == [one["id"]]


async def test_a_message_belongs_to_its_tenant(stack: Stack) -> None:
    made = await stack.post("/v1/webhooks/test", {"url": URL})
    assert made.status_code == 202
    path = f"/v1/webhooks/deliveries/{made.json()['id']}"
    assert (await stack.get("/v1/webhooks/deliveries", "other")).json()["data"] == []
    assert (await stack.get(path, "other")).status_code == 404
    assert (await stack.post(f"{path}/retry", who="other")).status_code == 404
    assert (await stack.post(f"{path}/retry", who="readonly")).status_code == 403
    assert (await stack.get(path, "admin")).status_code == 200
    again = await stack.post(f"{path}/retry")
    assert (again.status_code, again.json()["state"]) == (202, "waiting")
    assert (await stack.post(f"/v1/webhooks/deliveries/{new_job_id()}/retry")).status_code == 404


async def test_tests_are_bounded_for_each_tenant(stack: Stack) -> None:
    made = [await stack.post("/v1/webhooks/test", {"url": URL}) for _ in range(11)]
    assert [each.status_code for each in made] == [202] * 10 + [429]
    assert int(made[-1].headers["retry-after"]) > 0
    assert (await stack.post("/v1/webhooks/test", {"url": URL}, "other")).status_code == 202
    (begun,) = await stack.context.storage.deliveries.due(1)
    await stack.context.storage.deliveries.arrived(await stack.context.storage.deliveries.begin(begun, 60))
    assert (await stack.post("/v1/webhooks/test", {"url": URL})).status_code == 202


@pytest.mark.parametrize(
    "url",
    [
        "http://plain.example/",
        "ftp://x.example/",
        "https://me:word@x.example/",
        "nonsense",
        "https://x.example/" + "a" * 2048,
    ],
)
async def test_an_address_that_may_not_be_named(stack: Stack, url: str) -> None:
    answers = [
        (await stack.post("/v1/jobs", {**CHAT, "webhook": url}), "webhook"),
        (await stack.post("/v1/chat/completions", CHAT, prefer="respond-async", x_webhook=url), "X-Webhook"),
        (await stack.post("/v1/webhooks/test", {"url": url}), "url"),
    ]
    for answer, param in answers:
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_call_that_is_awaited_has_no_webhook(stack: Stack) -> None:
    answer = await stack.post("/v1/chat/completions", CHAT, x_webhook=URL)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "X-Webhook")
    assert "respond-async" in answer.json()["error"]["message"]


@pytest.mark.parametrize("query", ["state=lost", "limit=0", "limit=201", "limit=x", "cursor=x"])
async def test_a_wrong_filter_is_refused(stack: Stack, query: str) -> None:
    answer = await stack.get(f"/v1/webhooks/deliveries?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, query.partition("=")[0])


async def test_the_secret_is_for_administrators(stack: Stack, settings: Settings) -> None:
    assert (await stack.get("/v1/webhooks/secret")).status_code == 403
    shown = (await stack.get("/v1/webhooks/secret", "admin")).json()["secret"]
    assert shown == webhooks.load_secret(settings) == (settings.home / "webhooks.key").read_text().strip()
    assert (settings.home / "webhooks.key").stat().st_mode & 0o777 == 0o600


async def test_a_configured_secret_is_used(tmp_path: Path, redis_url: str, template: Path) -> None:
    secret = "whsec_" + "A" * 32
    settings = settings_for(tmp_path / "own", redis_url, security={"webhook_secret": secret})
    async with serving(settings, template) as stack:
        assert (await stack.get("/v1/webhooks/secret", "admin")).json()["secret"] == secret
    assert not (settings.home / "webhooks.key").exists()


@pytest.mark.parametrize("secret", ["plain", "whsec_", "whsec_AAAA", "whsec_!!!!" + "A" * 32])
def test_a_secret_that_is_none_is_refused(tmp_path: Path, secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        settings_for(tmp_path, "unix:///nowhere", security={"webhook_secret": secret})


async def test_the_end_of_a_group_is_told_once(stack: Stack, replica: Replica, settings: Settings) -> None:
    plain = await stack.post("/v1/groups", {"jobs": [CHAT], "webhook": "http://plain.example/"})
    assert (plain.status_code, plain.json()["error"]["param"]) == (400, "webhook")
    group = {"jobs": [{**CHAT, "webhook": URL}, CHAT], "webhook": URL, "metadata": {"a": "b"}}
    made = (await stack.post("/v1/groups", group, idempotency_key="one")).json()
    for _ in range(2):
        await stack.post(f"/v1/groups/{made['id']}/cancel")
    page = (await stack.get("/v1/webhooks/deliveries")).json()["data"]
    assert sorted(each["type"] for each in page) == ["group.finished", "job.cancelled"]
    (told,) = [each for each in page if each["subject"] == made["id"]]
    found = (await stack.context.storage.deliveries.due(9))[page[::-1].index(told)]
    message = orjson.loads((await stack.context.storage.deliveries.begin(found, 60)).payload)
    assert message["data"] == {
        **message["data"],
        "id": made["id"],
        "counts": {"cancelled": 2},
        "total": 2,
        "metadata": {"a": "b"},
    }
