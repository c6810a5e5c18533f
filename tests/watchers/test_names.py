"""Names of files, and the ids that follow from files."""

from pathlib import Path

import pytest

from inferq.job import is_job_id
from watchers import identity, names
from watchers.identity import Identity

FOLDER = Path("/home/raw")
SEEN = Identity(mtime_ns=1_700_000_000_123_456_789, inode=42, size=7)
LONG = "ж" * 120 + ".json"


@pytest.mark.parametrize(
    "name", [".hidden.json", "a.json.tmp", "a.part", ".a.json.swp", "a.SWP", "a.json~", "a.crdownload"]
)
def test_unfinished_files_are_ignored(name: str) -> None:
    assert not names.is_job_file(name)


@pytest.mark.parametrize("name", ["a.json", "a", "a.txt", "ü b.json", "a.tmp.json"])
def test_others_are_job_files(name: str) -> None:
    assert names.is_job_file(name)


def test_only_json_counts_as_extension() -> None:
    assert names.split("a.b.json") == ("a.b", ".json")
    assert names.split("a.JSON") == ("a", ".JSON")
    assert names.split("a.txt") == ("a.txt", "")
    assert names.numbered("a", 1, ".json") == "a.json"
    assert names.numbered("a", 12, ".error.json") == "a-12.error.json"


def test_long_names_are_cut_between_characters() -> None:
    made = names.numbered(LONG.removesuffix(".json") * 2, 3, ".error.json")
    assert len(made.encode()) <= 255
    assert made.endswith("ж-3.error.json")


@pytest.mark.parametrize("name", ["a.json", "a", "a.b.json", "line\nbreak.json"])
def test_a_name_in_temp_tells_job_and_name(name: str) -> None:
    job_id = identity.job_id(FOLDER, name, SEEN, "0" * 64)
    assert names.parse_underway(names.underway(job_id, name)) == (job_id, name)
    assert names.parse_underway(name) == (None, name)
    assert len(names.underway(job_id, LONG).encode()) <= 255


def test_the_id_follows_from_all_that_makes_a_drop() -> None:
    first = identity.job_id(FOLDER, "a", SEEN, "0" * 64)
    assert first == identity.job_id(FOLDER, "a", SEEN, "0" * 64)
    others = {
        identity.job_id(Path("/other"), "a", SEEN, "0" * 64),
        identity.job_id(FOLDER, "b", SEEN, "0" * 64),
        identity.job_id(FOLDER, "a", SEEN, "1" * 64),
        identity.job_id(FOLDER, "a", Identity(SEEN.mtime_ns + 1, 42, 7), "0" * 64),
        identity.job_id(FOLDER, "a", Identity(SEEN.mtime_ns, 43, 7), "0" * 64),
        identity.job_id(FOLDER, "a", Identity(SEEN.mtime_ns, 42, 8), "0" * 64),
        identity.job_id(FOLDER, "a", SEEN, "0" * 64, repeat=1),
    }
    assert len(others - {first}) == 7
    assert all(is_job_id(each) and each[14] == "7" for each in others | {first})


def test_ids_sort_by_time_and_repeats_are_the_same_drop() -> None:
    later = Identity(SEEN.mtime_ns + 1_000_000, 1, 1)
    assert identity.job_id(FOLDER, "a", SEEN, "f" * 64, repeat=9) < identity.job_id(
        FOLDER, "a", later, "0" * 64
    )
    first, again = (identity.job_id(FOLDER, "a", SEEN, "0" * 64, repeat=n) for n in (0, 4095))
    assert identity.is_same_drop(first, again)
    assert not identity.is_same_drop(first, identity.job_id(FOLDER, "b", SEEN, "0" * 64))
