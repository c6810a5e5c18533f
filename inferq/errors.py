"""The error tree of the whole project; one class per thing that can go wrong, none of them knows HTTP.

    InferqError
    ├── InvalidRequest              the caller must change the request
    │   ├── UnsupportedParameter
    │   ├── ContextLengthExceeded
    │   ├── ModelTooLarge           no device has the memory
    │   ├── BodyTooLarge
    │   ├── BodyTooSlow
    │   ├── HeadersTooLarge
    │   ├── HeadersTooSlow
    │   ├── IdempotencyMismatch     the key was used for another request
    │   └── NotReady                the feature exists in the documentation but not in this release
    ├── Unauthenticated             no key, or a key nobody knows
    ├── Forbidden                   the key's role is too low
    │   └── RefusedByHook           a hook does not let the request in
    ├── NotFound
    │   ├── ModelNotFound
    │   └── JobNotFound
    ├── Conflict                    the job's state forbids the action
    │   └── LeaseLost               the attempt is no longer trusted
    ├── AtCapacity                  a stated bound is reached; come back later
    │   ├── QueueFull
    │   ├── RateLimited             requests or tokens per minute
    │   └── BudgetSpent             device seconds per day or month
    ├── EngineError                 the engine failed while it ran the job
    │   ├── EngineLoadFailed
    │   ├── EngineCrashed
    │   ├── EngineTimeout
    │   ├── OutOfMemory             also alone, the job needs more memory than there is
    │   └── StreamBroken
    ├── Unavailable                 a part of the system is away
    │   ├── QueueUnavailable        Redis
    │   ├── StoreUnavailable        SQL or the artifact store
    │   ├── ServerStopping          the process that was asked ends
    │   ├── EngineUnavailable       every replica of the model rests, since its engine keeps failing
    │   └── TooManyConnections
    └── ConfigError                 the configuration cannot be used

`api.errors` maps classes to HTTP, `inferq.cli.exits` to exit codes; a test checks that every class has a row there.
"""

from typing import Any, ClassVar


class InferqError(Exception):
    """Root of the tree. `code` is stable and machine-readable; `retryable` says whether the same call may succeed."""

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str = "", *, param: str | None = None, retry_after: float | None = None, **details: Any
    ):
        super().__init__(message or (type(self).__doc__ or "").strip())
        self.param = param
        self.retry_after = retry_after
        self.details = details

    @property
    def message(self) -> str:
        return str(self.args[0])


class InvalidRequest(InferqError):
    """The request is malformed."""

    code = "invalid_request"


class UnsupportedParameter(InvalidRequest):
    """The model's engine cannot honour a parameter."""

    code = "unsupported_parameter"


class ContextLengthExceeded(InvalidRequest):
    """The prompt is longer than the model's context."""

    code = "context_length_exceeded"


class ModelTooLarge(InvalidRequest):
    """The model needs more memory than any device has."""

    code = "model_too_large"


class BodyTooLarge(InvalidRequest):
    """The request body is larger than the limit."""

    code = "body_too_large"


class BodyTooSlow(InvalidRequest):
    """The request body stopped coming before its end."""

    code = "body_too_slow"


class HeadersTooLarge(InvalidRequest):
    """The request's headers are larger, or more, than the limit."""

    code = "headers_too_large"


class HeadersTooSlow(InvalidRequest):
    """The request's headers did not come to their end in time."""

    code = "headers_too_slow"


class IdempotencyMismatch(InvalidRequest):
    """The idempotency key was used for another request."""

    code = "idempotency_mismatch"


class NotReady(InvalidRequest):
    """The feature is documented but not built in this release."""

    code = "not_supported"


class Unauthenticated(InferqError):
    """A valid API key is required."""

    code = "invalid_api_key"


class Forbidden(InferqError):
    """This key may not do that."""

    code = "permission_denied"


class RefusedByHook(Forbidden):
    """A hook does not let this request in."""

    code = "refused_by_hook"


class NotFound(InferqError):
    """There is no such thing."""

    code = "not_found"


class ModelNotFound(NotFound):
    """There is no such model."""

    code = "model_not_found"


class JobNotFound(NotFound):
    """There is no such job."""

    code = "job_not_found"


class Conflict(InferqError):
    """The job's state forbids this."""

    code = "conflict"


class LeaseLost(Conflict):
    """The attempt lost its lease; its result is not wanted."""

    code = "lease_lost"


class AtCapacity(InferqError):
    """A bound is reached."""

    code = "at_capacity"
    retryable = True


class QueueFull(AtCapacity):
    """The queue is full."""

    code = "queue_full"


class RateLimited(AtCapacity):
    """Too many requests, or tokens, in a minute."""

    code = "rate_limit_exceeded"


class BudgetSpent(AtCapacity):
    """The device time of the day or month is used."""

    code = "insufficient_quota"


class EngineError(InferqError):
    """The engine failed."""

    code = "engine_error"
    retryable = True


class EngineLoadFailed(EngineError):
    """The model could not be loaded."""

    code = "engine_load_failed"


class EngineCrashed(EngineError):
    """The engine process died."""

    code = "engine_crashed"


class EngineTimeout(EngineError):
    """The engine gave no answer within its bound."""

    code = "engine_timeout"


class OutOfMemory(EngineError):
    """The engine ran out of memory."""

    code = "out_of_memory"
    retryable = False


class StreamBroken(EngineError):
    """The stream ended before its end."""

    code = "stream_broken"
    retryable = False


class Unavailable(InferqError):
    """A part of the system is away."""

    code = "service_unavailable"
    retryable = True


class QueueUnavailable(Unavailable):
    """The queue (Redis) is away."""

    code = "queue_unavailable"


class StoreUnavailable(Unavailable):
    """The job store (SQL) is away."""

    code = "store_unavailable"


class ServerStopping(Unavailable):
    """This server is being stopped and could not wait for the answer; ask again."""

    code = "server_stopping"


class EngineUnavailable(Unavailable):
    """The engines of the model keep failing; it is tried again later."""

    code = "engine_unavailable"


class TooManyConnections(Unavailable):
    """The server has as many open connections as it may."""

    code = "too_many_connections"


class ConfigError(InferqError):
    """The configuration cannot be used."""

    code = "config_error"
