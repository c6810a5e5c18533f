"""The errors an engine answers with, and their one form on the wire.

    EngineError                      any failure that has an HTTP status
    ├── BadRequest              400  the body is wrong; `param` names the field
    │   ├── UnsupportedParameter     the field is known or unknown, but this engine cannot honour it
    │   └── ContextLengthExceeded    the input (and what was asked for) does not fit the model's context
    ├── ModelNotFound           404  another model than the one served
    ├── RouteNotFound           404  no such path or method
    ├── TooLarge                413  the body is over the limit
    ├── NotReady                503  still loading, or going down
    └── EngineFault             500  the engine failed; the message is safe to show
        └── OutOfMemory              the request, or those beside it, needed more memory than there is

Must not know HTTP servers: it only says which status, type and code belong to which failure.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar


class EngineError(Exception):
    """A failure with a status and the fields of OpenAI's error object."""

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.error_code = code or self.code

    def body(self) -> dict[str, Any]:
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.error_code,
            }
        }


class BadRequest(EngineError):
    """The request is wrong; sending it again changes nothing."""

    status = 400
    kind = "invalid_request_error"
    code = "invalid_value"


class UnsupportedParameter(BadRequest):
    """A field this engine cannot honour. It is refused because ignoring it would answer another question."""

    code = "unsupported_parameter"

    def __init__(self, param: str, reason: str = "this engine does not support it") -> None:
        super().__init__(f"Unsupported parameter: '{param}': {reason}.", param=param)


class ContextLengthExceeded(BadRequest):
    """The input, or the input with the asked output, is longer than the model's context."""

    code = "context_length_exceeded"


class ModelNotFound(EngineError):
    """The body names another model than the one this process serves."""

    status = 404
    kind = "invalid_request_error"
    code = "model_not_found"


class RouteNotFound(EngineError):
    """No handler for this method and path."""

    status = 404
    kind = "invalid_request_error"
    code = "unknown_url"


class TooLarge(EngineError):
    """The body is longer than this engine reads."""

    status = 413
    kind = "invalid_request_error"
    code = "request_too_large"


class NotReady(EngineError):
    """The weights are still loading, or the process is going down."""

    status = 503
    kind = "server_error"
    code = "engine_not_ready"


class EngineFault(EngineError):
    """The engine itself failed while it worked on this request."""

    code = "engine_error"


class OutOfMemory(EngineFault):
    """Alone, or in a smaller batch, the same request may have room."""

    code = "out_of_memory"


# What torch, the CUDA libraries, C++ and other engines say, each in its own words.
_NO_MEMORY = re.compile(
    r"out of memory|out_of_memory|OutOfMemoryError|cudaErrorMemoryAllocation|_STATUS_ALLOC_FAILED|std::bad_alloc"
    r"|(?:can't|cannot|could not|failed to|unable to) allocate (?:[\w.]+ )?(?:memory|buffer|tensor)"
    r"|unable to allocate [0-9.]+ [KMGT]iB|not enough memory",
    re.IGNORECASE,
)


def tells_no_memory(message: str) -> bool:
    """Whether a message of an engine, or of the library below it, says that memory ran out."""
    return _NO_MEMORY.search(message) is not None


def fault_of(error: Exception, what: str = "The engine failed") -> EngineFault:
    """What an unexpected exception of an engine is to its caller. Torch's own class is known by its name alone, as this
    module must not load it."""
    message = f"{what}: {type(error).__name__}: {error}"
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"OutOfMemoryError", "MemoryError"} or tells_no_memory(str(error)):
        return OutOfMemory(message)
    return EngineFault(message)
