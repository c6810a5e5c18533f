"""Webhook messages: list them, send one again, send a test, and the secret that receivers check them with."""

import time
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from api import operations
from api.auth import Access
from api.body import read_object
from api.calls import json_response
from api.context import caller_of, context_of
from api.routes import Routes
from inferq import errors, webhooks
from inferq.endpoints import fields
from inferq.endpoints.fields import STRING, Field
from storage.deliveries import Delivery, DeliveryState

routes = Routes("Webhooks")

MOST = 200
MOST_TESTS = 10
"""Test messages of a tenant that wait."""
_URL = {
    "url": Field(
        types=(STRING,),
        required=True,
        doc="Where the message goes.",
        schema={"format": "uri", "maxLength": webhooks.LONGEST_URL},
    )
}
_ID = operations.parameter("path", "delivery_id", "Id of the message, as its `webhook-id` says.")


@routes.route(
    "GET",
    "/webhooks/deliveries",
    access=Access.READONLY,
    summary="List webhook messages",
    parameters=[
        operations.parameter("query", "job", "Only messages about this job, or this group."),
        operations.parameter(
            "query",
            "state",
            "Only these.",
            {"type": "string", "enum": [str(state) for state in DeliveryState]},
        ),
        operations.parameter("query", "limit", "Page length.", {"type": "integer", "default": 50}),
        operations.parameter("query", "cursor", "`next_cursor` of the page before."),
    ],
    responses={
        "200": operations.answer("One page, newest first."),
        **operations.failures(400, 401, 403, 503),
    },
)
async def list_deliveries(request: Request) -> ASGIApp:
    """A user's key lists its tenant's, other keys everybody's. Those that have arrived or were given up are kept for
    `webhooks.keep`."""
    caller, asked = caller_of(request), request.query_params
    page = await context_of(request).storage.deliveries.page(
        tenant=None if caller.sees_all else caller.tenant,
        subject=asked.get("job"),
        state=_state(asked.get("state")),
        cursor=asked.get("cursor"),
        limit=_limit(asked.get("limit", "50")),
    )
    return json_response(
        {
            "object": "list",
            "data": [delivery_object(each) for each in page.deliveries],
            "has_more": page.next_cursor is not None,
            "next_cursor": page.next_cursor,
        }
    )


@routes.route(
    "GET",
    "/webhooks/deliveries/{delivery_id}",
    access=Access.READONLY,
    summary="Look at a webhook message",
    parameters=[_ID],
    responses={
        "200": operations.answer("The message's way so far."),
        **operations.failures(*operations.READ_ERRORS),
    },
)
async def get_delivery(request: Request) -> ASGIApp:
    """How often it was tried, when it is tried next, and what the last try said."""
    return json_response(delivery_object(await _find(request)))


@routes.route(
    "POST",
    "/webhooks/deliveries/{delivery_id}/retry",
    access=Access.USER,
    summary="Send a webhook message again",
    parameters=[_ID],
    responses={
        "202": operations.answer("The message, due now."),
        **operations.failures(*operations.READ_ERRORS),
    },
)
async def retry_delivery(request: Request) -> ASGIApp:
    """At once, with all its tries, also when it has arrived. Its id stays the same."""
    found = await _find(request)
    again = await context_of(request).storage.deliveries.retry(found.id)
    return json_response(delivery_object(again), status=202)


@routes.route(
    "POST",
    "/webhooks/test",
    access=Access.USER,
    summary="Send a test message",
    requestBody=operations.body(fields.object_schema(_URL), one={"url": "https://example.com/inferq"}),
    responses={
        "202": operations.answer("The message, due now."),
        **operations.failures(400, 401, 403, 429, 503),
    },
)
async def test_webhook(request: Request) -> ASGIApp:
    """A signed message of type `webhook.test`, sent like any other. Ten of a tenant may wait."""
    wanted = await read_object(request)
    fields.refuse_unknown(wanted, _URL)
    fields.verify(wanted, _URL)
    context, tenant = context_of(request), caller_of(request).tenant
    url = webhooks.permitted(wanted["url"], context.settings, "url")
    body = webhooks.message(webhooks.TEST, time.time(), {"object": "test", "tenant": tenant})
    made = await context.storage.deliveries.add(url, webhooks.TEST, "test", tenant, body, at_most=MOST_TESTS)
    return json_response(delivery_object(made), status=202)


@routes.route(
    "GET",
    "/webhooks/secret",
    access=Access.ADMIN,
    summary="Show the webhooks' secret",
    responses={"200": operations.answer("The secret, `whsec_...`."), **operations.failures(401, 403, 500)},
)
async def show_secret(request: Request) -> ASGIApp:
    """What receivers check signatures with. One for the whole installation; it is made at first use."""
    secret = webhooks.load_secret(context_of(request).settings)
    return json_response({"object": "webhook_secret", "secret": secret})


def delivery_object(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "object": "webhook.delivery",
        "state": delivery.state,
        "url": delivery.url,
        "type": delivery.event,
        "subject": delivery.subject,
        "tenant": delivery.tenant,
        "created_at": delivery.created_at,
        "attempts": delivery.attempts,
        "next_at": delivery.next_at,
        "delivered_at": delivery.delivered_at,
        "last_error": delivery.last_error,
    }


async def _find(request: Request) -> Delivery:
    """Another tenant's is as good as none."""
    delivery_id = request.path_params["delivery_id"]
    found = await context_of(request).storage.deliveries.get(delivery_id)
    if not caller_of(request).sees(found.tenant):
        raise errors.NotFound(f"There is no delivery {delivery_id}.")
    return found


def _state(text: str | None) -> DeliveryState | None:
    try:
        return None if text is None else DeliveryState(text)
    except ValueError:
        legal = ", ".join(DeliveryState)
        raise errors.InvalidRequest(f"Invalid value for 'state': one of {legal}.", param="state") from None


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 0 < int(text) <= MOST):
        raise errors.InvalidRequest(f"Invalid value for 'limit': 1 to {MOST}.", param="limit")
    return int(text)
