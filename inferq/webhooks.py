"""Webhooks: what a message says, how it is signed, and which addresses may be named for it.

The scheme is Standard Webhooks (standardwebhooks.com, specification 1.0): the headers `webhook-id`, `webhook-timestamp`
and `webhook-signature`. Nothing here sends anything.
"""

import base64
import hmac
import secrets
from datetime import UTC, datetime
from typing import Any

import orjson

from inferq import errors, secretfile
from inferq.config import Settings
from inferq.endpoints.fields import STRING, Field
from inferq.job import Job, JobState
from inferq.media.reference import remote_url

FILE = "webhooks.key"
"""The secret's file in INFERQ_HOME."""
PREFIX = "whsec_"
INLINE_RESULT = 64 * 2**10
"""Bytes of a JSON result up to which a message carries it."""
LONGEST_URL = 2048
TEST = "webhook.test"


def _check(url: str, param: str) -> None:
    if len(url) > LONGEST_URL:
        raise errors.InvalidRequest(f"'{param}' is longer than {LONGEST_URL} characters.", param=param)
    remote_url(url, param)


WEBHOOK = Field(
    types=(STRING,),
    doc="An https URL that is told when the job has ended; see docs/webhooks.md.",
    check=_check,
    schema={"format": "uri", "maxLength": LONGEST_URL},
)


def permitted(url: str, settings: Settings, param: str) -> str:
    """The URL, in one spelling, when it may be named here. Raises InvalidRequest.

    Whether its host leads to a public address is seen when something is sent there, since that may change.
    """
    _check(url, param)
    checked = remote_url(url, param)
    if checked.scheme != "https" and not settings.webhooks.allow_http:
        raise errors.InvalidRequest(
            f"'{param}' must be an https:// URL; http:// needs webhooks.allow_http in this server's configuration.",
            param=param,
        )
    return str(checked)


def host_of(url: str) -> str:
    """Whom a message goes to: receivers on one host share its limit."""
    try:
        return remote_url(url, "webhook").raw_host or url
    except errors.InvalidRequest:
        return url


def load_secret(settings: Settings) -> str:
    """The configured secret, else the one in INFERQ_HOME, which is made at first use. Raises ConfigError."""
    configured = settings.security.webhook_secret
    if configured is not None:
        return configured.get_secret_value()
    file = settings.home / FILE
    text = secretfile.load(file, lambda: PREFIX + base64.b64encode(secrets.token_bytes(32)).decode())
    try:
        _key(text)
    except ValueError:
        raise errors.ConfigError(
            f"{file} holds no secret of a webhook; remove it to have a new one made"
        ) from None
    return text


def headers(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers that prove where a message is from; `timestamp` is in Unix seconds."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.digest(_key(secret), signed, "sha256")).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }


def _key(secret: str) -> bytes:
    if not secret.startswith(PREFIX):
        raise ValueError(f"a secret begins with {PREFIX}")
    key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    if len(key) < 24:
        raise ValueError("a secret has at least 24 bytes")
    return key


def event_of(state: JobState) -> str:
    return f"job.{state}"


def job_message(job: Job) -> bytes:
    """The body of the message about the end of a job."""
    spec, here = job.spec, f"/v1/jobs/{job.id}"
    data: dict[str, Any] = {
        "id": job.id,
        "object": "job",
        "state": job.state,
        "model": spec.model,
        "endpoint": spec.endpoint,
        "tenant": spec.tenant,
        "group": spec.group,
        "generation": job.generation,
        "attempt": job.attempt,
        "metadata": spec.metadata,
        "created_at": spec.created_at,
        "finished_at": job.finished_at,
        "error": job.error.as_dict() if job.error else None,
        "result": _small_result(job),
        "artifact": job.artifact,
        "links": {"self": here, "result": f"{here}/result"},
    }
    try:
        return message(event_of(job.state), job.finished_at or 0.0, data)
    except TypeError:
        # The end of a job must not depend on what its caller wrote into it.
        return message(event_of(job.state), job.finished_at or 0.0, {**data, "metadata": {}, "result": None})


def message(event: str, moment: float, data: dict[str, Any]) -> bytes:
    """A message's body; `moment` is when it happened, in Unix seconds."""
    when = datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
    return orjson.dumps({"type": event, "timestamp": when, "data": data})


def _small_result(job: Job) -> Any:
    if (
        job.result is None
        or len(job.result) > INLINE_RESULT
        or not job.result_type.startswith("application/json")
    ):
        return None
    try:
        return orjson.loads(job.result)
    except orjson.JSONDecodeError:
        return None
