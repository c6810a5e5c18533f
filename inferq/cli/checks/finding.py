"""One line of `inferq doctor`."""

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    level: Literal["ok", "warn", "fail"]
    subject: str
    found: str
    advice: str = ""


def ok(subject: str, found: str) -> Finding:
    return Finding("ok", subject, found)


def warn(subject: str, found: str, advice: str) -> Finding:
    return Finding("warn", subject, found, advice)


def fail(subject: str, found: str, advice: str) -> Finding:
    return Finding("fail", subject, found, advice)
