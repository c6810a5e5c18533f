"""Device seconds are shared by the jobs that run at the same moment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers import device_clock
from workers.device_clock import DeviceClock


class Hand:
    """The time, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(device_clock.time, "monotonic", lambda: self.now)


def test_alone_a_job_is_charged_all_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    hand = Hand(monkeypatch)
    clock = DeviceClock()
    hand.now += 50
    job = clock.start()
    hand.now += 3
    assert clock.stop(job) == pytest.approx(3)


def test_two_share_while_both_run(monkeypatch: pytest.MonkeyPatch) -> None:
    hand = Hand(monkeypatch)
    clock = DeviceClock()
    first = clock.start()
    hand.now += 2
    second = clock.start()
    hand.now += 4
    assert clock.stop(first) == pytest.approx(2 + 2)
    hand.now += 1
    assert clock.stop(second) == pytest.approx(2 + 1)


@given(
    st.lists(st.tuples(st.floats(0, 10), st.sampled_from(["start", "stop"]), st.integers(0, 9)), max_size=60)
)
def test_what_is_charged_is_the_time_in_which_something_ran(steps: list[tuple[float, str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        hand = Hand(patch)
        clock = DeviceClock()
        running: list[float] = []
        charged = busy = 0.0
        for seconds, step, which in [*steps, *[(1.0, "stop", 0)] * len(steps)]:
            hand.now += seconds
            busy += seconds if running else 0.0
            if step == "start":
                running.append(clock.start())
            elif running:
                share = clock.stop(running.pop(which % len(running)))
                assert share >= 0
                charged += share
        assert charged == pytest.approx(busy)
