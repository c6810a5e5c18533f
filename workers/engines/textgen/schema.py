"""From a JSON schema to the form that answers are held to. A keyword that cannot be held is refused by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from workers.engines.failures import BadRequest, UnsupportedParameter
from workers.engines.textgen.forms import (
    ANY_OBJECT,
    Bounds,
    Characters,
    Free,
    Items,
    Member,
    Members,
    Node,
    Number,
    OneOf,
    Pairs,
    Shape,
    Stack,
    Text,
    Value,
    opened,
)

DEEPEST = 64
MOST_NODES = 500
MOST_VALUES = 5000
"""Values and names that one schema may fix. The machine looks at all of an enum at each of its first bytes."""
MOST_BYTES = 2**17
"""Bytes of all of them together."""
LARGEST = 1e15
ANNOTATIONS = frozenset(
    ("$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default")
)
ANNOTATIONS |= {"examples", "deprecated", "readOnly", "writeOnly", "discriminator"}
KEYWORDS: dict[str, tuple[str, ...]] = {
    "string": ("minLength", "maxLength"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "array": ("items", "minItems", "maxItems"),
    "object": ("properties", "required", "additionalProperties"),
    "boolean": (),
    "null": (),
}


def value_of(schema: Any, where: str) -> Value:
    """The form of a value of this schema; `where` is what the caller calls the schema."""
    try:
        made = Value(Reader(schema, where).read(schema, where, 0))
    except RecursionError as error:
        raise BadRequest(f"A value in the schema '{where}' is too deep.", param=where) from error
    if not opened([(made,)]):
        raise BadRequest(f"Nothing can match the schema '{where}'.", param=where)
    return made


class Reader:
    """Reads one schema with what it refers to inside itself."""

    def __init__(self, root: Any, where: str) -> None:
        self._root = root
        self._where = where
        self._known: dict[str, Node] = {}
        self._marks: dict[int, Marks] = {}
        self._count = self._values = self._bytes = 0

    def read(self, schema: Any, where: str, depth: int) -> Node:
        self._count += 1
        if depth > DEEPEST or self._count > MOST_NODES:
            raise BadRequest(f"The schema is too large or too deep at '{where}'.", param=where)
        if schema is True or schema == {}:
            return Node([(Free(),)])
        if not isinstance(schema, dict):
            raise BadRequest(f"'{where}' must be a schema that something can match.", param=where)
        for keyword, reader in self._whole().items():
            if keyword in schema:
                self._alone(schema, keyword, where)
                return reader(schema[keyword], f"{where}.{keyword}", depth)
        return Node([way for kind in kinds(schema, where) for way in self._ways(kind, schema, where, depth)])

    def _whole(self) -> dict[str, Callable[[Any, str, int], Node]]:
        """Keywords that say all about a value."""
        return {
            "$ref": self._reference,
            "const": lambda value, where, _depth: Node([(Text(self._texts([value], where)[0]),)]),
            "enum": self._enum,
            "anyOf": self._any,
            "oneOf": self._one,
            "allOf": self._all,
        }

    def _alone(self, schema: dict[str, Any], keyword: str, where: str) -> None:
        """Beside such a keyword others would have to hold too; `type` beside fixed values says nothing new."""
        allowed = ANNOTATIONS | {keyword} | ({"type"} if keyword in ("const", "enum") else set())
        for other in schema.keys() - allowed:
            raise UnsupportedParameter(f"{where}.{other}", f"it cannot be combined with '{keyword}'")

    def _reference(self, name: Any, where: str, depth: int) -> Node:
        if not is_inside(name):
            raise UnsupportedParameter(where, "only references inside the schema can be followed")
        if name not in self._known:
            node = self._known[name] = Node()
            node.ways = self.read(
                self._at(name, where), f"{self._where}{name[1:].replace('/', '.')}", depth + 1
            ).ways
        return Node([(Value(self._known[name]),)])

    def _at(self, name: str, where: str) -> Any:
        found = self._root
        for part in name[1:].split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or key not in found:
                raise BadRequest(f"'{where}' refers to {name!r}, which is not there.", param=where)
            found = found[key]
        return found

    def _enum(self, values: Any, where: str, _depth: int) -> Node:
        return Node([(OneOf(frozenset(self._texts(listed(values, where), where))),)])

    def _texts(self, values: Collection[Any], where: str) -> list[bytes]:
        """Values as they are written. Raises BadRequest once the schema has fixed too much."""
        self._values += len(values)
        found = [] if self._values > MOST_VALUES else list(map(encoded, values))
        self._bytes += sum(map(len, found))
        if self._values > MOST_VALUES or self._bytes > MOST_BYTES:
            raise BadRequest(
                f"The schema fixes too much at '{where}': it may list {MOST_VALUES} values and names"
                f" of {MOST_BYTES} bytes together.",
                param=where,
            )
        return found

    def _any(self, schemas: Any, where: str, depth: int) -> Node:
        nodes = [
            self.read(each, f"{where}[{place}]", depth + 1)
            for place, each in enumerate(listed(schemas, where))
        ]
        return Node([way for node in nodes for way in node.ways])

    def _one(self, schemas: Any, where: str, depth: int) -> Node:
        """Alternatives of which a value may match one only: those that a fixed property or their type tells apart."""
        made = self._any(schemas, where, depth)
        found = [self._marked(each) for each in schemas]
        for place, first in enumerate(found):
            if not all(first.apart(other) for other in found[place + 1 :]):
                raise UnsupportedParameter(where, "use 'anyOf': a value may match several of these")
        return made

    def _marked(self, schema: Any) -> Marks:
        """The marks of an alternative, or of what it refers to."""
        name = schema.get("$ref") if isinstance(schema, dict) else None
        meant = self._at(str(name), "$ref") if is_inside(name) else schema
        if id(meant) not in self._marks:
            self._marks[id(meant)] = Marks.of(meant)
        return self._marks[id(meant)]

    def _all(self, schemas: Any, where: str, depth: int) -> Node:
        if len(listed(schemas, where)) > 1:
            raise UnsupportedParameter(where, "only one schema can be held to")
        return self.read(schemas[0], f"{where}[0]", depth + 1)

    def _ways(self, kind: str, schema: dict[str, Any], where: str, depth: int) -> list[Stack]:
        if kind == "string":
            low, high = size(schema, "minLength", where) or 0, size(schema, "maxLength", where)
            return [(Characters(low, high), Text(b'"'))]
        if kind in ("integer", "number"):
            return [(Number(bounds(schema, kind == "integer", where)),)]
        if kind == "array":
            low, high = size(schema, "minItems", where) or 0, size(schema, "maxItems", where)
            inner = Value(self.read(schema.get("items", True), f"{where}.items", depth + 1))
            return [(Items(inner, low, high), Text(b"["))]
        if kind == "object":
            return self._object(schema, where, depth)
        return [(Text(word),) for word in ([b"null"] if kind == "null" else [b"true", b"false"])]

    def _object(self, schema: dict[str, Any], where: str, depth: int) -> list[Stack]:
        """Properties beyond those that a schema names are not written, where it names any."""
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        if not isinstance(properties, dict):
            raise BadRequest(f"'{where}.properties' must be an object.", param=f"{where}.properties")
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise BadRequest(f"'{where}.required' must be an array of names.", param=f"{where}.required")
        more = schema.get("additionalProperties", True)
        named = properties | {name: more for name in required if name not in properties}
        if named or more is False:
            keys, needed = self._texts(named, f"{where}.properties"), frozenset(required)
            members = [
                Member(key, Value(self.read(each, f"{where}.properties.{name}", depth + 1)), name in needed)
                for key, (name, each) in zip(keys, named.items(), strict=True)
            ]
            return [(Members(Shape(members)), Text(b"{"))]
        if more is True or more == {}:
            return [(ANY_OBJECT,)]
        inner = Value(self.read(more, f"{where}.additionalProperties", depth + 1))
        return [(Pairs(inner), Text(b"{"))]


def is_inside(name: Any) -> bool:
    return isinstance(name, str) and (name == "#" or name.startswith("#/"))


def kinds(schema: dict[str, Any], where: str) -> list[str]:
    """The types of a schema, said or meant. Refuses keywords that none of them has."""
    said = schema.get("type")
    found = [said] if isinstance(said, str) else said
    if found is None:
        found = [kind for kind in ("object", "array") if any(word in schema for word in KEYWORDS[kind])]
        found = found or list(KEYWORDS)
    if (
        not isinstance(found, list)
        or not found
        or not all(isinstance(kind, str) and kind in KEYWORDS for kind in found)
    ):
        raise BadRequest(
            f"'{where}.type' must be one or several of {', '.join(KEYWORDS)}.", param=f"{where}.type"
        )
    known = {word for kind in found for word in KEYWORDS[kind]} | ANNOTATIONS | {"type"}
    for word in schema:
        if word not in known:
            raise UnsupportedParameter(f"{where}.{word}", "answers cannot be held to it")
    # Every integer is a number.
    return [kind for kind in dict.fromkeys(found) if kind != "integer" or "number" not in found]


def bounds(schema: dict[str, Any], whole: bool, where: str) -> Bounds:
    low, over = tighter(schema, "minimum", "exclusiveMinimum", where, max)
    high, under = tighter(schema, "maximum", "exclusiveMaximum", where, min)
    if whole:
        low = None if low is None else math.floor(low) + 1 if over else math.ceil(low)
        high = None if high is None else math.ceil(high) - 1 if under else math.floor(high)
        over = under = False
    if low is not None and high is not None and (low > high or (low == high and (over or under))):
        raise BadRequest(f"No number lies within the bounds of '{where}'.", param=where)
    return Bounds(whole, low, high, over, under)


def tighter(
    schema: dict[str, Any], plain: str, exclusive: str, where: str, pick: Callable[..., float]
) -> tuple[float | None, bool]:
    """The bound that excludes more, and whether it excludes itself."""
    given = {}
    for name in (plain, exclusive):
        value = schema.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > LARGEST:
            raise BadRequest(f"'{where}.{name}' must be a number up to {LARGEST:g}.", param=f"{where}.{name}")
        given[name] = float(value)
    if not given:
        return None, False
    bound = pick(given.values())
    return bound, given.get(exclusive) == bound


def size(schema: dict[str, Any], name: str, where: str) -> int | None:
    value = schema.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise BadRequest(f"'{where}.{name}' must be a whole number from 0.", param=f"{where}.{name}")
    return value


def listed(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise BadRequest(f"'{where}' must be a non-empty array.", param=where)
    return value


@dataclass(frozen=True)
class Marks:
    """What tells the values of a schema from those of another: their types, and required properties of fixed values.

    No types stand for any, as integers are numbers.
    """

    types: frozenset[str] = frozenset()
    fixed: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, schema: Any) -> Marks:
        if not isinstance(schema, dict):
            return cls()
        said = schema.get("type")
        types = [kind for kind in (said if isinstance(said, list) else [said]) if isinstance(kind, str)]
        return cls(frozenset("number" if kind == "integer" else kind for kind in types), fixed(schema))

    def apart(self, other: Marks) -> bool:
        """Whether no value matches both schemas."""
        if self.types and other.types and self.types.isdisjoint(other.types):
            return True
        both = self.fixed.keys() & other.fixed.keys()
        return any(self.fixed[name].isdisjoint(other.fixed[name]) for name in both)


def fixed(schema: dict[str, Any]) -> dict[str, frozenset[str]]:
    """The required properties whose values a schema lists."""
    found = {}
    for name in frozenset(schema.get("required") or ()):
        inner = (schema.get("properties") or {}).get(name)
        if isinstance(inner, dict) and ("const" in inner or isinstance(inner.get("enum"), list)):
            values = [inner["const"]] if "const" in inner else inner["enum"]
            found[name] = frozenset(json.dumps(value, sort_keys=True) for value in values)
    return found


def encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
