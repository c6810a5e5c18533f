"""Which files are ready, and when."""

from watchers.identity import Identity
from watchers.sightings import MOST, QUIET, Sightings

SMALL = Identity(mtime_ns=1, inode=1, size=10)
GROWN = Identity(mtime_ns=2, inode=1, size=20)


def test_a_file_is_ready_after_two_equal_looks_half_a_second_apart() -> None:
    seen = Sightings()
    seen.look("a", SMALL, 0.0)
    assert not seen.ready(100.0)
    seen.look("a", SMALL, QUIET - 0.01)
    assert not seen.ready(QUIET - 0.01)
    seen.look("a", SMALL, QUIET)
    assert seen.ready(QUIET) == ["a"]


def test_a_file_that_changed_begins_again() -> None:
    seen = Sightings()
    for now, identity in [(0.0, SMALL), (0.4, GROWN), (0.8, GROWN)]:
        seen.look("a", identity, now)
        assert not seen.ready(now)
    seen.look("a", GROWN, 0.4 + QUIET)
    assert seen.ready(0.4 + QUIET) == ["a"]


def test_a_renamed_file_is_ready_at_once_unless_it_changes() -> None:
    seen = Sightings()
    seen.look("a", SMALL, 0.0)
    seen.look("a", SMALL, 0.1, renamed=True)
    assert seen.ready(0.1) == ["a"]
    seen.look("a", GROWN, 0.2)
    assert not seen.ready(0.2)


def test_the_oldest_comes_first() -> None:
    seen = Sightings()
    for name, mtime in [("new", 30), ("old", 10), ("middle", 20)]:
        seen.look(name, Identity(mtime_ns=mtime, inode=mtime, size=1), 0.0, renamed=True)
    assert seen.ready(0.0) == ["old", "middle", "new"]


def test_a_file_that_is_gone_is_forgotten() -> None:
    seen = Sightings()
    seen.look_at_all({"a": SMALL, "b": SMALL}, 0.0)
    seen.look("a", None, 0.1)
    assert len(seen) == 1
    seen.look_at_all({}, 0.2)
    assert len(seen) == 0


def test_a_full_model_holds_back_its_own_files_only() -> None:
    seen = Sightings()
    for name in ("a", "b", "other"):
        seen.look(name, SMALL, 0.0, renamed=True)
    seen.hold_model("a", "busy", 5.0)
    seen.hold_model("b", "busy", 6.0)
    assert seen.ready(1.0) == ["other"]
    assert seen.is_held("a", 5.5)
    assert seen.ready(6.0) == ["a", "b", "other"]


def test_a_held_file_is_looked_at_again_when_it_is_due() -> None:
    seen = Sightings()
    seen.look("a", SMALL, 0.0, renamed=True)
    seen.hold("a", 3.0)
    assert (seen.ready(1.0), seen.to_look_at(1.0), seen.next_at()) == ([], [], 3.0)
    assert (seen.ready(3.0), seen.to_look_at(3.0)) == (["a"], ["a"])


def test_memory_is_bounded() -> None:
    seen = Sightings()
    for number in range(MOST + 5):
        seen.look(str(number), SMALL, 0.0)
    assert len(seen) == MOST
