"""What a promise is to the checker: a function that takes the evidence and yields violations, and the list of them all.

No promise is stated here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.chaos.evidence import Evidence

SEEING = ("look", "cancel", "retry")
"""Operations that are told the state of a job."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise. `jobs` and `markers` say whose timeline tells more."""

    rule: str
    text: str
    jobs: tuple[str, ...] = ()
    markers: tuple[str, ...] = ()


Rule = Callable[[Evidence], Iterator[Violation]]
RULES: list[Rule] = []


def rule(check: Rule) -> Rule:
    RULES.append(check)
    return check


def violation(rule: Rule, text: str, *jobs: str | None, markers: tuple[str, ...] = ()) -> Violation:
    return Violation(rule.__name__, text, tuple(filter(None, jobs)), markers)


def asked_to_fail(hooks: str) -> bool:
    return "!crash" in hooks or "!error" in hooks
