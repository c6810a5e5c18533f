"""The bodies of `images/generations` and `images/edits`, read by the map of a workflow.

A field that the map does not have is refused by its name. Must not know the server.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.engines.comfy.workflow import SYNONYMS, Graph, Target, Workflow
from workers.engines.failures import BadRequest, UnsupportedParameter
from workers.engines.fields import Fields, check_range, wrong_type
from workers.engines.image_api import MOST_PREVIEWS, MOST_SEED, harmless, output_of, size_of
from workers.engines.media import local_path

MOST_UNITS = 16
RANDOM_SEEDS = 2**32  # what every client can keep exactly
UNIT = "controlnet_units"
NESTED = ("image", UNIT)
# Fields of every image model; refused by name where a workflow has no place for them.
ORDINARY = ("prompt", "width", "height", "seed", *(names[0] for names in SYNONYMS))


@dataclass(frozen=True)
class Limits:
    """What one request may ask for. Pixels are width times height of one picture."""

    pixels: int
    input_pixels: int
    steps: int
    images: int


@dataclass(frozen=True)
class Form:
    """How pictures leave: `name` is None where they stay as the workflow wrote them; quality 0 to 100."""

    name: str | None = None
    quality: int | None = None


@dataclass(frozen=True)
class Upload:
    """A picture to hand to the server first, and the inputs that get its name there."""

    path: Path
    param: str
    kind: str
    targets: tuple[Target, ...]


@dataclass(frozen=True)
class Ask:
    """One request. `sources` tells which field a value came from, for values of the caller only."""

    graph: Graph
    uploads: tuple[Upload, ...]
    sources: Mapping[tuple[str, str], str]
    seed: int | None
    form: Form
    stream: bool
    previews: int


class Reader:
    """Reads one body by the map and the limits of one engine."""

    def __init__(self, workflow: Workflow, limits: Limits, media: str | None) -> None:
        self.workflow, self.limits, self.media = workflow, limits, media

    def read(self, fields: Fields) -> Ask:
        """Raises BadRequest."""
        try:
            return self._read(fields)
        except BadRequest as error:
            if error.param in ("width", "height") and not fields.given(error.param):
                error.param = "size"
            raise

    def _read(self, fields: Fields) -> Ask:
        given = dict(self.given(fields))
        stream = fields.flag("stream")
        previews = fields.integer("partial_images", 0, MOST_PREVIEWS) or 0
        harmless(fields, read=self.workflow.parameters)
        form = Form(*output_of(fields))
        fields.close()
        if "prompt" in self.workflow.parameters and "prompt" not in given:
            raise BadRequest("'prompt' is required.", param="prompt")
        seed = self.seed(given)
        self.check_limits(given)
        uploads = tuple(self.uploads(given))
        values, sources = self.values(given)
        return Ask(self.workflow.filled(values), uploads, sources, seed, form, stream, previews)

    def given(self, fields: Fields) -> Iterator[tuple[str, Any]]:
        """The values of the caller by parameter; nested ones as `image[1]` and `controlnet_units[0].weight`."""
        size = self.size(fields)
        for name in dict.fromkeys([*self.workflow.parameters, *ORDINARY]):
            if name.partition("[")[0] in NESTED:
                continue
            value = size.get(name) if size and name in size else self.one(fields, name)
            if value is not None and self.asks(name, value):
                yield name, value
        yield from self.pictures(fields)
        yield from self.units(fields)

    def asks(self, name: str, value: Any) -> bool:
        """Whether a value goes into the graph. Raises UnsupportedParameter where it should and cannot."""
        if name in self.workflow.parameters:
            return True
        nothing = {"prompt": "", "n": 1, "seed": -1}
        if name in nothing and value == nothing[name] and not isinstance(value, bool):
            return False
        raise UnsupportedParameter(name, "this workflow has no place for it")

    def one(self, fields: Fields, name: str) -> Any:
        """The value of a field and its synonyms. Raises BadRequest where they differ."""
        names = next((names for names in SYNONYMS if name in names), (name,))
        given = {each: fields.raw(each) for each in names if fields.given(each)}
        values = list(given.values())
        if any(each != values[0] for each in values[1:]):
            raise BadRequest(f"'{list(given)[1]}' contradicts its synonym.", param=list(given)[1])
        return values[0] if values else None

    def size(self, fields: Fields) -> dict[str, int]:
        found = size_of(fields)
        sides = dict(zip(("width", "height"), found, strict=True)) if found else {}
        for name, side in sides.items():
            if name not in self.workflow.parameters:
                raise UnsupportedParameter("size", f"this workflow has no place for a {name}")
            if fields.raw(name) not in (None, side):
                raise BadRequest(f"'size' contradicts '{name}'.", param="size")
        return sides

    def pictures(self, fields: Fields) -> Iterator[tuple[str, Any]]:
        value = self.one(fields, "image")
        for place, each in enumerate(value if isinstance(value, list) else [value]):
            name = f"image[{place}]" if place else "image"
            if each is not None and self.asks(name, each):
                yield name, each

    def units(self, fields: Fields) -> Iterator[tuple[str, Any]]:
        if not any(name.startswith(f"{UNIT}[") for name in self.workflow.parameters):
            return
        units = fields.listing(UNIT) or []
        if len(units) > MOST_UNITS:
            raise BadRequest(f"'{UNIT}' has more than {MOST_UNITS} units.", param=UNIT)
        for place, unit in enumerate(units):
            if not isinstance(unit, dict):
                raise wrong_type(f"{UNIT}[{place}]", "an object")
            for key, value in unit.items():
                name = f"{UNIT}[{place}].{key}"
                if value is not None and self.asks(name, value):
                    yield name, value

    def seed(self, given: dict[str, Any]) -> int | None:
        """The seed, which is put into `given`; None where the workflow has none. -1 asks for any."""
        targets = self.workflow.parameters.get("seed")
        if targets is None:
            return None
        value = given.get("seed", -1)
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type("seed", "an integer")
        check_range("seed", value, -1, MOST_SEED)
        if value == -1:
            lows = [int(target.input.low or 0) for target in targets]
            highs = [int(target.input.high or RANDOM_SEEDS - 1) for target in targets]
            low, high = max(0, *lows), min(RANDOM_SEEDS - 1, *highs)
            value = low + secrets.randbelow(max(1, high - low + 1))
        given["seed"] = value
        return value

    def check_limits(self, given: Mapping[str, Any]) -> None:
        self.bounded(given, "steps", self.limits.steps)
        self.bounded(given, "n", self.limits.images)
        sides = [given.get(name, self.workflow.literal(name)) for name in ("width", "height")]
        if not {"width", "height"} & set(given) or not all(type(side) is int for side in sides):
            return
        if sides[0] * sides[1] > self.limits.pixels:
            raise BadRequest(
                f"{sides[0]}x{sides[1]} is more than the {self.limits.pixels} pixels allowed here.",
                param="width" if "width" in given else "height",
            )

    def bounded(self, given: Mapping[str, Any], name: str, most: int) -> None:
        value = given.get(name)
        if type(value) is int and value > most:
            raise BadRequest(f"Invalid value for '{name}': {value} is more than {most}.", param=name)

    def uploads(self, given: dict[str, Any]) -> Iterator[Upload]:
        """The pictures, taken out of `given`. Raises BadRequest for one that the workflow needs and nobody gave."""
        for name, targets in self.workflow.parameters.items():
            kind = targets[0].upload
            if kind is None:
                continue
            value = given.pop(name, None)
            if value is not None:
                yield Upload(local_path(value, name, self.media), name, kind, targets)
            elif targets[0].default is None:
                raise BadRequest(f"'{name}' is required: this workflow begins with a picture.", param=name)

    def values(
        self, given: Mapping[str, Any]
    ) -> tuple[dict[tuple[str, str], Any], dict[tuple[str, str], str]]:
        """What to set by (node, input), and which field of the caller it came from."""
        values: dict[tuple[str, str], Any] = {}
        sources: dict[tuple[str, str], str] = {}
        for name, targets in self.workflow.parameters.items():
            for target in targets:
                place = (target.node, target.name)
                if name in given:
                    values[place] = self.checked(target, given[name], name)
                    sources[place] = name
                elif target.default is not None:
                    values[place] = target.default
        return values, sources

    def checked(self, target: Target, value: Any, name: str) -> Any:
        found = target.input.check(value, name)
        step = target.input.step
        # The server would round a side without a word, and answer with another size than was asked for.
        if name in ("width", "height") and step > 1 and value % step:
            raise BadRequest(f"'{name}' must be a multiple of {step:g}.", param=name)
        if name == "prompt" and not str(value).strip():
            raise BadRequest("'prompt' must be a text that is not empty.", param="prompt")
        return found
