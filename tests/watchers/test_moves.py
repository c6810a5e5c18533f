"""Files change place without a loss, and are read only when they are whole."""

import fcntl
import os
import signal
import threading
from pathlib import Path

import pytest

from inferq import errors
from tests.watchers.home import until_sync
from watchers import drops, moves
from watchers.identity import Identity


def put(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_nothing_is_ever_replaced(tmp_path: Path) -> None:
    for text in ("one", "two", "three"):
        moves.move_numbered(put(tmp_path / "in.json", text), tmp_path, "a.json")
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {"a.json": "one", "a-2.json": "two", "a-3.json": "three"}


def test_a_move_cut_off_between_its_steps_is_completed(tmp_path: Path) -> None:
    source = put(tmp_path / "in", "x")
    (tmp_path / "out").hardlink_to(source)
    assert moves.move_numbered(source, tmp_path, "out") == tmp_path / "out"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_without_hard_links_nothing_is_replaced_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(moves.os, "link", refuse)
    put(tmp_path / "a.json", "old")
    moves.move_numbered(put(tmp_path / "in.json", "new"), tmp_path, "a.json")
    assert ((tmp_path / "a.json").read_text(), (tmp_path / "a-2.json").read_text()) == ("old", "new")


def test_a_file_replaced_meanwhile_goes_back(tmp_path: Path) -> None:
    source = put(tmp_path / "a.json", "old")
    seen = Identity.of(source.stat())
    put(tmp_path / "b", "newer").rename(source)
    assert not moves.move_if(source, tmp_path / "taken", seen)
    assert source.read_text() == "newer"
    assert moves.move_if(source, tmp_path / "taken", Identity.of(source.stat()))


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    put(tmp_path / "a.json", "old")
    monkeypatch.setattr(moves.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        moves.write_whole(tmp_path / "a.json", [b"new"])
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.json", "old")]


def test_a_file_with_a_writer_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with path.open("w") as writer:
        writer.write("{}")
        writer.flush()
        with pytest.raises(drops.Unsettled):
            drops.read(path, None, 100)
    assert drops.read(path, None, 100).data == b"{}"


def test_a_file_that_changed_since_it_was_seen_is_not_read(tmp_path: Path) -> None:
    seen = Identity.of(put(tmp_path / "a.json", "{}").stat())
    put(tmp_path / "a.json", "{ }")
    with pytest.raises(drops.Unsettled):
        drops.read(tmp_path / "a.json", seen, 100)


def test_links_pipes_and_folders_are_left_alone(tmp_path: Path) -> None:
    put(tmp_path / "real.json", "{}")
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    assert list(drops.scan(tmp_path, 10)) == ["real.json"]
    for name in ("link.json", "pipe.json", "gone.json"):
        with pytest.raises(drops.Unsettled):
            drops.read(tmp_path / name, None, 100)


def test_a_scan_is_bounded(tmp_path: Path) -> None:
    for number in range(5):
        put(tmp_path / f"{number}.json", "{}")
    assert len(drops.scan(tmp_path, 3)) == 3


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(errors.BodyTooLarge, match="the limit of this server is 100"):
        drops.read(tmp_path / "large.json", None, 100)


@pytest.mark.skipif(not hasattr(fcntl, "F_SETLEASE"), reason="needs read leases")
def test_a_writer_that_comes_during_the_test_for_writers_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real, heard = put(tmp_path / "a.json", "{}"), fcntl.fcntl, list[int]()
    writer = threading.Thread(target=lambda: path.open("r+").close())

    def meddling(descriptor: int, command: int, argument: int = 0) -> int:
        if (command, argument) == (fcntl.F_SETLEASE, fcntl.F_UNLCK):
            writer.start()
            # While the kernel waits for the holder to give way, it tells of the lease that is to be.
            until_sync(lambda: real(descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK)
        return real(descriptor, command, argument)

    before = signal.signal(signal.SIGIO, lambda number, _: heard.append(number))
    try:
        monkeypatch.setattr(fcntl, "fcntl", meddling)
        assert drops.read(path, None, 100).data == b"{}"
        writer.join()
    finally:
        signal.signal(signal.SIGIO, before)
    assert not heard, "the usual disposition of that signal ends the process"
