"""Exit codes: the one table from error class to code, and the text about it that `--help` shows.

It must not know commands or output.
"""

from inferq import errors

OK = 0
INTERNAL = 1
USAGE = 2
JOB_NOT_SUCCEEDED = 10
INTERRUPTED = 130

CODES: dict[type[errors.InferqError], int] = {
    errors.InferqError: INTERNAL,
    errors.ConfigError: USAGE,
    errors.InvalidRequest: 3,
    errors.UnsupportedParameter: 3,
    errors.ContextLengthExceeded: 3,
    errors.ModelTooLarge: 3,
    errors.BodyTooLarge: 3,
    errors.BodyTooSlow: 3,
    errors.HeadersTooLarge: 3,
    errors.HeadersTooSlow: 3,
    errors.IdempotencyMismatch: 3,
    errors.NotReady: 3,
    errors.Unauthenticated: 4,
    errors.Forbidden: 4,
    errors.RefusedByHook: 4,
    errors.NotFound: 5,
    errors.ModelNotFound: 5,
    errors.JobNotFound: 5,
    errors.Conflict: 6,
    errors.LeaseLost: 6,
    errors.AtCapacity: 7,
    errors.QueueFull: 7,
    errors.RateLimited: 7,
    errors.BudgetSpent: 7,
    errors.EngineError: 8,
    errors.EngineLoadFailed: 8,
    errors.EngineCrashed: 8,
    errors.EngineTimeout: 8,
    errors.OutOfMemory: 8,
    errors.StreamBroken: 8,
    errors.Unavailable: 9,
    errors.QueueUnavailable: 9,
    errors.StoreUnavailable: 9,
    errors.ServerStopping: 9,
    errors.EngineUnavailable: 8,
    errors.TooManyConnections: 9,
}

MEANINGS = {
    OK: "done",
    INTERNAL: "an error that this program did not expect",
    USAGE: "wrong arguments, or a configuration that cannot be used",
    3: "the request cannot be served as it is: change it",
    4: "no valid key, its role is too low, or a hook refused it",
    5: "no such job, model or thing",
    6: "the job's state forbids it",
    7: "a bound is reached: come back later",
    8: "the engine failed",
    9: "the server, Redis or the job store is away",
    JOB_NOT_SUCCEEDED: "the job was awaited and did not succeed",
    INTERRUPTED: "interrupted",
}

HELP = "[bold]Exit codes[/bold]\n" + "\n".join(f"{code:>3}  {meaning}" for code, meaning in MEANINGS.items())


def code_of(error: errors.InferqError) -> int:
    """The code of the error's class, else of the nearest class above it."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)
