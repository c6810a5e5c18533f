"""File names: which ones are job files, and how results, errors and numbered copies are called. Pure."""

import os
import re

LONGEST = 255
"""Bytes of a file name on common file systems."""
PARTIAL = ".inferq"
"""Suffix of the hidden files that this process writes before it renames them into place."""

_UNFINISHED = (".tmp", ".temp", ".part", ".partial", ".swp", ".swx", ".crdownload", ".filepart", "~")
_UNDERWAY = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.(.+)", re.DOTALL)


def is_job_file(name: str) -> bool:
    """False for hidden files and for what editors, browsers and copying programs write until they are done."""
    return not name.startswith(".") and not name.lower().endswith(_UNFINISHED)


def split(name: str) -> tuple[str, str]:
    """The NAME of results, and the extension: only `.json` counts as one."""
    return (name[:-5], name[-5:]) if name.lower().endswith(".json") and len(name) > 5 else (name, "")


def numbered(stem: str, number: int, suffix: str) -> str:
    """`stem` + `suffix`, from the second on with ``-number`` between; the stem is cut where it would be too long."""
    tail = suffix if number == 1 else f"-{number}{suffix}"
    room = LONGEST - len(tail.encode())
    encoded = os.fsencode(stem)
    return (stem if len(encoded) <= room else encoded[:room].decode(errors="ignore")) + tail


def underway(job_id: str, name: str) -> str:
    """What a job file is called in the temp folder, so that every crash leaves its job's id beside its name."""
    stem, extension = split(name)
    return numbered(f"{job_id}.{stem}", 1, extension)


def parse_underway(name: str) -> tuple[str | None, str]:
    """(job id, original name) of a file in the temp folder; no id when this process did not put it there."""
    match = _UNDERWAY.fullmatch(name)
    return (match.group(1), match.group(2)) if match else (None, name)
