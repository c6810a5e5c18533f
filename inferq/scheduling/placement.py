"""Which replicas should exist, and where. A pure function of what is configured, what waits and what is there.

1. A warm model has its configured number of replicas, always.
2. Another model has them while a job waits or runs, and `idle_timeout` longer.
3. A replica that exists keeps its place: moving costs a load.
4. A new one goes to the configured device, else to the least loaded device of the fastest kind, on a live node.
5. A drained replica, or one of a drained node, stays while its model is needed and counts for nothing. No new one goes
   to a drained node, nor beside a drained replica of the same model: that one still has its memory.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote

_KIND_ORDER = {"cuda": 0, "gcu": 1, "cpu": 9}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDemand:
    """What placement needs to know of a model. `device` is "auto" or a device's name."""

    name: str
    device: str
    replicas: int
    warm: bool
    idle_timeout: float
    waiting: int


@dataclass(frozen=True, slots=True)
class Device:
    node: str
    name: str

    @property
    def kind(self) -> str:
        return self.name.partition(":")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One replica: its name is MODEL@DEVICE.NODE, with a number behind the model from the second on a device."""

    name: str
    model: str
    device: str
    node: str

    @property
    def file_name(self) -> str:
        """The name as one part of a path: names of models may have slashes."""
        return quote(self.name, safe="@:#+ ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """A replica that is there. `idle_for` is seconds since it last had a job."""

    place: Place
    busy: int
    idle_for: float


@dataclass(frozen=True, slots=True)
class Drained:
    """What operators let take no more jobs, by name."""

    replicas: frozenset[str] = field(default_factory=frozenset)
    nodes: frozenset[str] = field(default_factory=frozenset)

    def has(self, name: str, node: str) -> bool:
        """Whether a replica may take nothing."""
        return name in self.replicas or node in self.nodes

    def beside(self, model: str, device: Device) -> bool:
        """Whether a replica of the model is drained on this device, by its name."""
        tail = f"@{device.name}.{device.node}"
        heads = [name.removesuffix(tail) for name in self.replicas if name.endswith(tail)]
        return any(head == model or head.startswith(f"{model}#") for head in heads)


NOTHING = Drained()


def place(
    models: Iterable[ModelDemand],
    devices: Iterable[Device],
    residents: Iterable[Resident],
    drained: Drained = NOTHING,
) -> dict[str, list[Place]]:
    """The replicas that each node should have. Nodes without any are named with an empty list."""
    known = sorted(set(devices), key=lambda d: (_KIND_ORDER.get(d.kind, 5), d.node, d.name))
    wanted: dict[str, list[Place]] = {device.node: [] for device in known}
    there: dict[str, list[Resident]] = {}
    for resident in residents:
        there.setdefault(resident.place.model, []).append(resident)
    kept: list[tuple[ModelDemand, list[Place]]] = []
    load: Counter[Device] = Counter()
    for model in models:
        mine = sorted(there.get(model.name, []), key=lambda r: (r.busy == 0, r.place.name))
        if not _needed(model, mine):
            continue
        here = [r.place for r in mine if Device(r.place.node, r.place.device) in known]
        aside = [p for p in here if drained.has(p.name, p.node)]
        stay = [p for p in here if p not in aside][: model.replicas]
        kept.append((model, stay))
        load.update(Device(p.node, p.device) for p in (*aside, *stay))
        for each in aside:
            wanted[each.node].append(each)
    free = [device for device in known if device.node not in drained.nodes]
    for model, places in kept:
        for chosen in _completed(model, places, free, load, drained):
            wanted[chosen.node].append(chosen)
    return wanted


def _needed(model: ModelDemand, residents: list[Resident]) -> bool:
    if model.warm or model.waiting > 0:
        return True
    return any(r.busy > 0 or r.idle_for < model.idle_timeout for r in residents)


def _completed(
    model: ModelDemand, kept: list[Place], free: list[Device], load: Counter[Device], drained: Drained
) -> list[Place]:
    """The kept places and as many new ones as the model lacks; `load` counts the new ones too."""
    fit = [device for device in free if model.device in ("auto", device.name)]
    if model.device == "auto" and fit:
        fit = [device for device in fit if device.kind == fit[0].kind]
    fit = [device for device in fit if not drained.beside(model.name, device)]
    places = list(kept)
    taken = {p.name for p in places}
    own = Counter(Device(p.node, p.device) for p in places)
    while fit and len(places) < model.replicas:
        device = min(fit, key=lambda d: (load[d], own[d], fit.index(d)))
        own[device] += 1
        load[device] += 1
        name = _free_name(model.name, device, taken)
        taken.add(name)
        places.append(Place(name=name, model=model.name, device=device.name, node=device.node))
    return places


def _free_name(model: str, device: Device, taken: set[str]) -> str:
    number = 1
    while (name := f"{model}{'' if number == 1 else f'#{number}'}@{device.name}.{device.node}") in taken:
        number += 1
    return name
