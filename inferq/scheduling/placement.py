"""Which replicas should exist, and where. A pure function of what is configured, what waits and what is there.

1. A warm model has its configured number of replicas, always.
2. Another model has them while a job waits or runs, and `idle_timeout` longer.
3. A replica that exists keeps its place: moving costs a load.
4. A new one goes to the configured device, else to the least loaded device of the fastest kind, on a live node.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
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


def place(
    models: Iterable[ModelDemand], devices: Iterable[Device], residents: Iterable[Resident]
) -> dict[str, list[Place]]:
    """The replicas that each node should have. Nodes without any are named with an empty list."""
    known = sorted(set(devices), key=lambda d: (_KIND_ORDER.get(d.kind, 5), d.node, d.name))
    wanted: dict[str, list[Place]] = {device.node: [] for device in known}
    there: dict[str, list[Resident]] = {}
    for resident in residents:
        there.setdefault(resident.place.model, []).append(resident)
    kept: list[tuple[ModelDemand, list[Place]]] = []
    for model in models:
        mine = sorted(there.get(model.name, []), key=lambda r: (r.busy == 0, r.place.name))
        if _needed(model, mine):
            stay = [r.place for r in mine if Device(r.place.node, r.place.device) in known]
            kept.append((model, stay[: model.replicas]))
    load = Counter(Device(p.node, p.device) for _, places in kept for p in places)
    for model, places in kept:
        for chosen in _completed(model, places, known, load):
            wanted[chosen.node].append(chosen)
    return wanted


def _needed(model: ModelDemand, residents: list[Resident]) -> bool:
    if model.warm or model.waiting > 0:
        return True
    return any(r.busy > 0 or r.idle_for < model.idle_timeout for r in residents)


def _completed(
    model: ModelDemand, kept: list[Place], known: list[Device], load: Counter[Device]
) -> list[Place]:
    """The kept places and as many new ones as the model lacks; `load` counts the new ones too."""
    fit = [device for device in known if model.device in ("auto", device.name)]
    if model.device == "auto" and fit:
        fit = [device for device in fit if device.kind == fit[0].kind]
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
