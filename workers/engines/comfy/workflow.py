"""A workflow as a template: its graph in ComfyUI's API format, and which fields of a request go where.

The graph is the operator's: read once, checked against what the server has installed, and copied for each request.
Must not know HTTP or bodies.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workers.engines.comfy.inputs import ANY, MOST_NAMED, Input, inputs_of

Graph = dict[str, dict[str, Any]]
IMAGE, MASK = "image", "mask"
SEEDS = ("seed", "noise_seed")
SPEC = ("node", "input", "default", "min", "max", "upload", "enum")
# Names of one meaning; the first is the one we use.
SYNONYMS = (
    ("n", "batch_size"),
    ("steps", "num_inference_steps"),
    ("guidance_scale", "cfg_scale"),
    ("denoise_strength", "strength"),
    ("image", "image_url"),
)
CANONICAL = {name: names[0] for names in SYNONYMS for name in names}
# Fields that the engine reads itself; a caller's `workflow` is never run, so nothing may have that name.
RESERVED = (
    *("model", "size", "stream", "partial_images", "workflow"),
    *("response_format", "output_format", "output_compression"),
)


@dataclass(frozen=True)
class Target:
    """One input of one node. `default` is None where the value in the graph is."""

    node: str
    name: str
    input: Input
    default: Any = None
    upload: str | None = None


@dataclass(frozen=True)
class Workflow:
    """A checked template. `outputs` are node ids; empty: every node that gives pictures."""

    graph: Graph
    parameters: Mapping[str, tuple[Target, ...]]
    outputs: tuple[str, ...]

    def literal(self, name: str) -> Any:
        """What a parameter is when nobody says: its default, else the value in the graph; None for a link."""
        for target in self.parameters.get(name, ()):
            value = target.default if target.default is not None else self._value(target)
            return None if isinstance(value, list) else value
        return None

    def _value(self, target: Target) -> Any:
        return self.graph[target.node]["inputs"].get(target.name)

    def filled(self, values: Mapping[tuple[str, str], Any]) -> Graph:
        """A copy of the graph with values by (node, input)."""
        graph = copy.deepcopy(self.graph)
        for (node, name), value in values.items():
            graph[node]["inputs"][name] = value
        return graph


def read(given: str | dict[str, Any], folder: str) -> Any:
    """The JSON of a workflow: itself, or a file's. Raises OSError, ValueError."""
    if isinstance(given, dict):
        return given
    path = Path(folder) / given
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"the workflow {path} is not JSON: {error}") from error


def build(
    raw: Any, parameters: Mapping[str, Any], outputs: list[Any], classes: Mapping[str, Any]
) -> Workflow:
    """Check a workflow and its map against the classes that the server has. Raises ValueError."""
    graph = checked_graph(raw)
    missing = sorted({node["class_type"] for node in graph.values()} - set(classes))
    if missing:
        raise ValueError(f"ComfyUI has no node class {', '.join(missing)}; install the custom nodes there")
    check_choices(graph, classes)
    found: dict[str, tuple[Target, ...]] = {}
    for name, given in parameters.items():
        if name in RESERVED:
            raise ValueError(f"option 'parameters': {name!r} cannot be the name of a parameter")
        where = f"option 'parameters': {name}"
        several = given if isinstance(given, list) else [given]
        found[CANONICAL.get(name, name)] = tuple(target_of(each, graph, classes, where) for each in several)
    if "seed" not in found:
        found |= own_seeds(graph, classes)
    chosen = tuple(node_id(graph, each, "option 'outputs'") for each in outputs)
    return Workflow(graph, found, chosen)


def checked_graph(raw: Any) -> Graph:
    """The graph with its list literals wrapped. Raises ValueError for the editor's format, and for broken links."""
    if isinstance(raw, dict) and isinstance(raw.get("nodes"), list) and "links" in raw:
        raise ValueError(
            "the workflow is in the editor's format; in ComfyUI choose Workflow > Export (API) and use that file"
        )
    if not isinstance(raw, dict) or not raw:
        raise ValueError("the workflow must be an object of nodes, as ComfyUI's Export (API) writes it")
    for name, node in raw.items():
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            raise ValueError(f"the workflow's node {name} has no class_type")
        if not isinstance(node.get("inputs"), dict):
            raise ValueError(f"the workflow's node {name} has no inputs")
    return {name: {**node, "inputs": dict(literals(name, node, raw))} for name, node in raw.items()}


def check_choices(graph: Graph, classes: Mapping[str, Any]) -> None:
    """Raises ValueError where the graph names a model, or another choice, that the server does not have."""
    for name, node in graph.items():
        declared = inputs_of(classes[node["class_type"]])
        for key, value in node["inputs"].items():
            choices = declared.get(key, Input()).choices
            if choices is None or isinstance(value, list | dict) or value in choices:
                continue
            known = ", ".join(str(each) for each in choices[:MOST_NAMED]) or "none"
            raise ValueError(
                f"ComfyUI does not have {value!r} for {key} of the workflow's node {name}, but {known}"
            )


def literals(name: str, node: Mapping[str, Any], graph: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Inputs of a node; a list that is no link is wrapped, as the server wants it."""
    for key, value in node["inputs"].items():
        if not isinstance(value, list) or is_link(value, graph):
            yield key, value
        elif len(value) == 2 and isinstance(value[0], str) and value[0].isdigit() and type(value[1]) is int:
            raise ValueError(f"the workflow's node {name} links {key} to node {value[0]}, which is not there")
        else:
            yield key, {"__value__": value}


def is_link(value: Any, graph: Mapping[str, Any]) -> bool:
    """`[node, slot]`."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and type(value[1]) is int
        and value[0] in graph
    )


def node_id(graph: Mapping[str, Any], wanted: Any, where: str) -> str:
    """The id of a node named by its id or its title. Raises ValueError."""
    if str(wanted) in graph:
        return str(wanted)
    titled = [name for name, node in graph.items() if (node.get("_meta") or {}).get("title") == wanted]
    if len(titled) != 1:
        raise ValueError(
            f"{where}: {len(titled) or 'no'} nodes of the workflow have the id or title {wanted!r}"
        )
    return titled[0]


def target_of(given: Any, graph: Graph, classes: Mapping[str, Any], where: str) -> Target:
    """A target from `"node.input"`, or from an object that may also narrow what is legal."""
    if isinstance(given, str):
        node, _, name = given.rpartition(".")
        given = {"node": node, "input": name}
    if not isinstance(given, dict) or not {"node", "input"} <= set(given):
        raise ValueError(f"{where} must be 'node.input', or an object with 'node' and 'input'")
    unknown = sorted(set(given) - set(SPEC))
    if unknown:
        raise ValueError(f"{where} has unknown keys: {', '.join(unknown)}")
    if given.get("upload") not in (None, IMAGE, MASK):
        raise ValueError(f"{where}: 'upload' must be {IMAGE} or {MASK}")
    node, name = node_id(graph, given["node"], where), str(given["input"])
    declared = declared_input(graph[node], name, classes, where)
    target = Target(node, name, narrowed(declared, given, where), given.get("default"), given.get("upload"))
    if target.default is not None and target.upload is None:
        target.input.check(target.default, f"{where}: default")
    return target


def declared_input(node: Mapping[str, Any], name: str, classes: Mapping[str, Any], where: str) -> Input:
    known = inputs_of(classes[node["class_type"]])
    # Inputs that come and go with a choice have a point in their name, and are declared nowhere.
    if name in node["inputs"] and "." in name:
        return known.get(name, Input())
    if name not in known:
        raise ValueError(f"{where}: {node['class_type']} has no input {name!r}, but {', '.join(known)}")
    return known[name]


def narrowed(declared: Input, given: Mapping[str, Any], where: str) -> Input:
    low, high = given.get("min"), given.get("max")
    for bound in (low, high):
        if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int | float)):
            raise ValueError(f"{where}: 'min' and 'max' must be numbers")
    lows = [each for each in (declared.low, low) if each is not None]
    highs = [each for each in (declared.high, high) if each is not None]
    found = replace(declared, low=max(lows, default=None), high=min(highs, default=None))
    if given.get("enum") is None:
        return found
    if not isinstance(given["enum"], list):
        raise ValueError(f"{where}: 'enum' must be a list")
    absent = [each for each in given["enum"] if declared.choices is not None and each not in declared.choices]
    if absent:
        raise ValueError(f"{where}: ComfyUI does not know {', '.join(map(str, absent))}")
    return replace(found, choices=tuple(given["enum"]))


def own_seeds(graph: Graph, classes: Mapping[str, Any]) -> dict[str, tuple[Target, ...]]:
    """The seeds of a graph whose map names none: all of them, for an unchanged seed gives a stored picture again."""
    found = tuple(
        Target(node, name, inputs_of(classes[graph[node]["class_type"]]).get(name, Input(ANY)))
        for node in graph
        for name in SEEDS
        if type(graph[node]["inputs"].get(name)) is int
    )
    return {"seed": found} if found else {}
