"""Forms an answer can be held to, as a machine over bytes.

What is still to come is a stack of frames, innermost last; the empty stack means that the form is complete. Some frames
stand for several ways to go on and are opened before the next byte; the others take a byte or refuse it. So the state
of a form is a set of stacks. Objects and arrays are written as Python's `json.dumps` writes them, on one line. Must not
know tokens, nor where a form comes from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from workers.engines.textgen.jsonform import ANY, NUMBER, NUMBER_MAY_END, OBJECT, JsonState, step

LONGEST_BLANK = 12
LONGEST_NUMBER = 24
MOST_WAYS = 512
BLANKS = b" \t\r\n"

Stack = tuple["Frame", ...]
State = frozenset[Stack]


class Frame:
    """One thing that is still to come."""

    may_end = False
    """Whether an answer may end here, though more could come."""

    def open(self, below: Stack) -> Iterable[Stack] | None:
        """The ways to go on without a byte; None for a frame that takes bytes itself."""
        return None

    def step(self, below: Stack, byte: int) -> Stack | None:
        """What is to come after this byte; None where it does not fit."""
        raise NotImplementedError


@dataclass(frozen=True)
class Text(Frame):
    """Exactly these bytes."""

    rest: bytes

    def step(self, below: Stack, byte: int) -> Stack | None:
        if byte != self.rest[0]:
            return None
        return (*below, Text(self.rest[1:])) if len(self.rest) > 1 else below


@dataclass(frozen=True)
class OneOf(Frame):
    """One of these texts."""

    rests: frozenset[bytes]

    def open(self, below: Stack) -> Iterable[Stack] | None:
        if len(self.rests) == 1:
            (rest,) = self.rests
            return ((*below, Text(rest)),) if rest else (below,)
        return (below, (*below, OneOf(self.rests - {b""}))) if b"" in self.rests else None

    def step(self, below: Stack, byte: int) -> Stack | None:
        rests = frozenset(rest[1:] for rest in self.rests if rest[0] == byte)
        return (*below, OneOf(rests)) if rests else None


@dataclass(frozen=True)
class Free(Frame):
    """Any JSON value, or any object, with blanks inside where JSON allows them."""

    state: JsonState = ANY
    blank: int = 0

    def open(self, below: Stack) -> Iterable[Stack] | None:
        # Nothing but what follows tells that a number is over.
        return (below,) if len(self.state) == 1 and self.state[0] in NUMBER_MAY_END else None

    def step(self, below: Stack, byte: int) -> Stack | None:
        inside_text = self.state[-1][0] in "sku"
        blank = self.blank + 1 if byte in BLANKS and not inside_text else 0
        most = 0 if self.state in (ANY, OBJECT) else LONGEST_BLANK
        following = step(self.state, byte) if blank <= most else None
        if following is None:
            return None
        return (*below, Free(following, blank)) if following else below


ANY_OBJECT = Free(OBJECT)


@dataclass(frozen=True)
class Characters(Frame):
    """The inside of a text and its closing quote."""

    low: int = 0
    high: int | None = None
    state: JsonState = ("s",)
    count: int = 0

    def step(self, below: Stack, byte: int) -> Stack | None:
        following = step(self.state, byte)
        if following == ():
            return below if self.count >= self.low else None
        if following is None or (self.high is not None and self.count >= self.high):
            return None
        return (*below, replace(self, state=following, count=self.count + (following == ("s",))))


@dataclass(frozen=True)
class Bounds:
    """Where a number may lie; `over` and `under` exclude the bounds themselves."""

    whole: bool
    low: float | None = None
    high: float | None = None
    over: bool = False
    under: bool = False

    @property
    def given(self) -> bool:
        return self.low is not None or self.high is not None

    def hold(self, value: float) -> bool:
        """Whether a number lies within."""
        low = self.low is None or value > self.low or (value == self.low and not self.over)
        return low and (self.high is None or value < self.high or (value == self.high and not self.under))

    def reachable(self, text: str) -> bool:
        """Whether a number that begins so, and grows up to the longest, can lie within."""
        if len(text) >= LONGEST_NUMBER:
            return self.hold(float(text))
        digits = text.removeprefix("-")
        sign = -1 if text.startswith("-") else 1
        low, high, under = self.low, self.high, self.under
        if sign < 0:
            low, high, under = _minus(self.high), _minus(self.low), self.over
        if not digits:
            return high is None or high > 0 or (high == 0 and not under)
        _, point, decimals = digits.partition(".")
        width = 10.0 ** -len(decimals)
        start = float(digits)
        most = 0 if point or digits == "0" else LONGEST_NUMBER - len(text)
        if digits == "0" and self.whole:
            width = 0.5  # nothing may follow
        return any(
            (high is None or start * 10**more < high or (start * 10**more == high and not under))
            and (low is None or (start + width) * 10**more > low)
            for more in range(most + 1)
        )


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


@dataclass(frozen=True)
class Number(Frame):
    """A number within bounds, written without an exponent."""

    bounds: Bounds
    mark: str = "v"
    text: str = ""

    def open(self, below: Stack) -> Iterable[Stack] | None:
        """Where it may be over, what follows is a way to go on beside its next digit."""
        return (below,) if self.whole else None

    @property
    def whole(self) -> bool:
        return self.mark in NUMBER_MAY_END and (not self.bounds.given or self.bounds.hold(float(self.text)))

    def step(self, below: Stack, byte: int) -> Stack | None:
        state = step((self.mark,), byte)
        if not state or state[0] not in NUMBER or byte in (b".eE" if self.bounds.whole else b"eE"):
            return None
        length = len(self.text) + 1
        if length > LONGEST_NUMBER or (length == LONGEST_NUMBER and state[0] not in NUMBER_MAY_END):
            return None
        grown = replace(self, mark=state[0], text=self.text + chr(byte))
        if self.bounds.given and not self.bounds.reachable(grown.text):
            return None
        return (*below, grown)


@dataclass(eq=False)
class Node:
    """A value of one schema: the ways to begin it. Filled after it was made, because schemas name themselves."""

    ways: list[Stack] = field(default_factory=list)


@dataclass(frozen=True)
class Value(Frame):
    """A value of a schema."""

    node: Node

    def open(self, below: Stack) -> Iterable[Stack]:
        return ((*below, *way) for way in self.node.ways)


@dataclass(frozen=True)
class Member:
    """A property that a schema names."""

    key: bytes
    value: Value
    required: bool


@dataclass(eq=False)
class Shape:
    """The properties of an object. Known by itself, because stacks are compared at every byte."""

    members: list[Member]


@dataclass(frozen=True)
class Members(Frame):
    """The rest of an object whose properties come in their schema's order, and its closing brace."""

    shape: Shape
    place: int = 0
    written: bool = False

    def open(self, below: Stack) -> Iterator[Stack]:
        comma = b", " if self.written else b""
        for place in range(self.place, len(self.shape.members)):
            member = self.shape.members[place]
            rest = Members(self.shape, place + 1, True)
            yield (*below, rest, member.value, Text(comma + member.key + b": "))
            if member.required:
                return
        yield (*below, Text(b"}"))


@dataclass(frozen=True)
class Pairs(Frame):
    """The rest of an object with any keys, and its closing brace."""

    value: Value
    written: bool = False

    def open(self, below: Stack) -> Iterator[Stack]:
        yield (*below, Text(b"}"))
        comma = b", " if self.written else b""
        rest = Pairs(self.value, True)
        yield (*below, rest, self.value, Text(b": "), Characters(), Text(comma + b'"'))


@dataclass(frozen=True)
class Items(Frame):
    """The rest of an array, and its closing bracket."""

    value: Value
    low: int = 0
    high: int | None = None
    count: int = 0

    def open(self, below: Stack) -> Iterator[Stack]:
        if self.count >= self.low:
            yield (*below, Text(b"]"))
        if self.high is None or self.count < self.high:
            comma = (Text(b", "),) if self.count else ()
            yield (*below, replace(self, count=self.count + 1), self.value, *comma)


@dataclass(frozen=True)
class Until(Frame):
    """Any text up to a tag and with it."""

    tag: bytes
    may_end: bool = False
    seen: bytes = b""

    def step(self, below: Stack, byte: int) -> Stack | None:
        seen = self.seen + bytes((byte,))
        if seen.endswith(self.tag):
            return below
        return (*below, replace(self, seen=seen[-len(self.tag) :]))


@dataclass(frozen=True)
class Repeat(Frame):
    """A row of frames again and again."""

    row: Stack

    def open(self, below: Stack) -> Iterable[Stack]:
        return ((*below, self, *self.row),)


def opened(stacks: Iterable[Stack]) -> State:
    """All stacks that these stand for and whose innermost frame takes a byte, or that are complete."""
    found: set[Stack] = set()
    seen: set[Stack] = set()
    rest = list(stacks)
    while rest and len(seen) < MOST_WAYS:
        stack = rest.pop()
        if stack in seen:
            continue
        seen.add(stack)
        ways = stack[-1].open(stack[:-1]) if stack else None
        if ways is not None:
            rest += ways
        if ways is None or isinstance(stack[-1], Free | Number):
            found.add(stack)
    return frozenset(found)


def after(state: State, byte: int) -> State:
    """The state after a byte; empty where it does not fit."""
    following = (stack[-1].step(stack[:-1], byte) for stack in state if stack)
    return opened(stack for stack in following if stack is not None)
