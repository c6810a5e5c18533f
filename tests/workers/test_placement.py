"""Placement, a pure function: a table of cases, and what holds for every case."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.scheduling.placement import Device, Drained, ModelDemand, Place, Resident, place

GPU, GPU1, CPU = Device("a", "cuda:0"), Device("a", "cuda:1"), Device("a", "cpu:0")
FAR = Device("b", "cuda:0")


def model(name: str = "m", **more: Any) -> ModelDemand:
    asked = {"device": "auto", "replicas": 1, "warm": False, "idle_timeout": 60.0, "waiting": 0} | more
    return ModelDemand(name=name, **asked)


def resident(name: str = "m", device: Device = GPU, busy: int = 0, idle_for: float = 0.0) -> Resident:
    where = Place(
        name=f"{name}@{device.name}.{device.node}", model=name, device=device.name, node=device.node
    )
    return Resident(place=where, busy=busy, idle_for=idle_for)


def names(wanted: dict[str, list[Place]]) -> list[str]:
    return sorted(each.name for places in wanted.values() for each in places)


@pytest.mark.parametrize(
    ("models", "devices", "residents", "expected"),
    [
        # 1. Warm: always.
        ([model(warm=True)], [GPU], [], ["m@cuda:0.a"]),
        ([model(warm=True)], [GPU], [resident(idle_for=9999)], ["m@cuda:0.a"]),
        # 2. Not warm: while work waits or runs, and for its idle time.
        ([model()], [GPU], [], []),
        ([model(waiting=1)], [GPU], [], ["m@cuda:0.a"]),
        ([model()], [GPU], [resident(busy=1, idle_for=9999)], ["m@cuda:0.a"]),
        ([model()], [GPU], [resident(idle_for=59)], ["m@cuda:0.a"]),
        ([model()], [GPU], [resident(idle_for=61)], []),
        # 3. What is there stays where it is.
        ([model(warm=True)], [GPU, CPU], [resident(device=CPU)], ["m@cpu:0.a"]),
        ([model(warm=True, replicas=1)], [GPU, FAR], [resident(device=FAR)], ["m@cuda:0.b"]),
        # A replica of a node or device that is gone is not counted.
        ([model(warm=True)], [CPU], [resident(device=GPU)], ["m@cpu:0.a"]),
        # Too many: a busy one is kept.
        (
            [model(warm=True)],
            [GPU, GPU1],
            [resident(device=GPU), resident(device=GPU1, busy=1)],
            ["m@cuda:1.a"],
        ),
        # 4. A new one: the fastest kind, the least loaded device, or the configured one.
        ([model(warm=True)], [CPU, GPU], [], ["m@cuda:0.a"]),
        ([model(warm=True, device="cpu:0")], [CPU, GPU], [], ["m@cpu:0.a"]),
        ([model(warm=True, device="cuda:7")], [CPU, GPU], [], []),
        ([model("x", warm=True), model("y", warm=True)], [GPU, GPU1], [], ["x@cuda:0.a", "y@cuda:1.a"]),
        ([model(warm=True, replicas=2)], [GPU, FAR], [], ["m@cuda:0.a", "m@cuda:0.b"]),
        # A second one on the same device has a number.
        ([model(warm=True, replicas=2)], [CPU], [], ["m#2@cpu:0.a", "m@cpu:0.a"]),
        ([model(warm=True, replicas=3)], [CPU], [resident(device=CPU)], ["m#2@cpu:0.a", "m#3@cpu:0.a", "m@cpu:0.a"]),
        # Nothing to place it on.
        ([model(warm=True)], [], [], []),
        # A replica of a model that is no longer configured is not wanted.
        ([], [GPU], [resident(busy=1)], []),
    ],
)  # fmt: skip
def test_the_table(
    models: list[ModelDemand], devices: list[Device], residents: list[Resident], expected: list[str]
) -> None:
    assert names(place(models, devices, residents)) == expected


BUSY = resident(busy=1)


@pytest.mark.parametrize(
    ("models", "devices", "residents", "drained", "expected"),
    [
        # A drained node gets no new ones; without another node nobody does.
        ([model(warm=True)], [GPU, FAR], [], Drained(nodes=frozenset("a")), ["m@cuda:0.b"]),
        ([model(waiting=1)], [GPU, GPU1, CPU], [], Drained(nodes=frozenset("a")), []),
        # What is there stays while its model is needed, and another one is started for it.
        ([model()], [GPU, FAR], [BUSY], Drained(nodes=frozenset("a")), ["m@cuda:0.a", "m@cuda:0.b"]),
        ([model()], [GPU, FAR], [resident(idle_for=61)], Drained(nodes=frozenset("a")), []),
        # A drained replica is not replaced beside itself, nor on a slower kind of device.
        ([model(warm=True)], [GPU, CPU], [BUSY], Drained(frozenset(["m@cuda:0.a"])), ["m@cuda:0.a"]),
        ([model(warm=True)], [GPU, CPU], [], Drained(frozenset(["m#2@cuda:0.a"])), []),
        ([model(warm=True)], [GPU, GPU1], [BUSY], Drained(frozenset(["m@cuda:0.a"])), ["m@cuda:0.a", "m@cuda:1.a"]),
        # Another model's is none of its business.
        ([model("x", warm=True)], [GPU], [], Drained(frozenset(["m@cuda:0.a"])), ["x@cuda:0.a"]),
        # When it is allowed to go on there is one too many.
        ([model()], [GPU, FAR], [BUSY, resident(device=FAR)], Drained(), ["m@cuda:0.a"]),
    ],
)  # fmt: skip
def test_what_is_drained(
    models: list[ModelDemand],
    devices: list[Device],
    residents: list[Resident],
    drained: Drained,
    expected: list[str],
) -> None:
    assert names(place(models, devices, residents, drained)) == expected


def test_a_model_placed_later_still_counts_where_it_is() -> None:
    """`x` has no place yet and `y` sits on the first device: `x` goes to the other one."""
    wanted = place([model("x", warm=True), model("y", warm=True)], [GPU, GPU1], [resident("y", device=GPU)])
    assert names(wanted) == ["x@cuda:1.a", "y@cuda:0.a"]


def test_every_known_node_is_named() -> None:
    assert place([], [GPU, FAR], []) == {"a": [], "b": []}


DEVICES = st.builds(Device, st.sampled_from("abc"), st.sampled_from(["cuda:0", "cuda:1", "cpu:0", "gcu:0"]))
MODELS = st.lists(
    st.builds(
        ModelDemand,
        name=st.sampled_from(["p", "q", "r", "s"]),
        device=st.sampled_from(["auto", "cpu:0", "cuda:1"]),
        replicas=st.integers(1, 4),
        warm=st.booleans(),
        idle_timeout=st.just(60.0),
        waiting=st.integers(0, 2),
    ),
    unique_by=lambda demand: demand.name,
    max_size=4,
)


@given(MODELS, st.sets(DEVICES, max_size=8))
def test_what_always_holds(models: list[ModelDemand], devices: set[Device]) -> None:
    wanted = place(models, devices, [])
    places = [each for there in wanted.values() for each in there]
    assert len({each.name for each in places}) == len(places)
    count = Counter(each.model for each in places)
    for demand in models:
        fit = [device for device in devices if demand.device in ("auto", device.name)]
        needed = demand.warm or demand.waiting > 0
        assert count[demand.name] == (demand.replicas if needed and fit else 0)
    for node, there in wanted.items():
        for each in there:
            assert each.node == node
            assert Device(each.node, each.device) in devices


@given(MODELS, st.sets(DEVICES, max_size=8), st.sets(st.sampled_from("abc")))
def test_a_drained_node_gets_nothing_new(
    models: list[ModelDemand], devices: set[Device], nodes: set[str]
) -> None:
    before = place(models, devices, [])
    residents = [Resident(place=each, busy=1, idle_for=0) for there in before.values() for each in there]
    after = place(models, devices, residents, Drained(nodes=frozenset(nodes)))
    for node in nodes & set(after):
        assert sorted(each.name for each in after[node]) == sorted(each.name for each in before[node])
    assert not any(place(models, devices, [], Drained(nodes=frozenset(nodes))).get(node) for node in nodes)


@given(MODELS, st.sets(DEVICES, max_size=8))
def test_what_is_there_is_wanted_again(models: list[ModelDemand], devices: set[Device]) -> None:
    """A placement that was carried out is its own answer: nothing is moved or loaded twice."""
    first = place(models, devices, [])
    residents = [Resident(place=each, busy=0, idle_for=0) for there in first.values() for each in there]
    again = place(models, devices, residents)
    assert names(again) == names(first)
