"""Where built models lie: a complete build is reused, a half build is never seen.

A build is made under a temporary name beside its place and renamed when whole. `inferq-demo.json` holds the
hash of the recipe; another hash means another model, and the old build is replaced. It also holds the hash of the code
that last looked at it, so that others can tell without importing a recipe that nothing has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARK = "inferq-demo.json"


@dataclass(frozen=True)
class Recipe:
    """One model: its name, everything its weights depend on, and how it is made into a folder."""

    name: str
    ingredients: Any
    make: Callable[[Path], dict[str, Any]]

    @property
    def fingerprint(self) -> str:
        text = json.dumps([self.name, self.ingredients], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def code_hash() -> str:
    """Of all recipes' code."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


def is_seen(place: Path) -> bool:
    """Whether this code has found the build at a place good. Cheap: no recipe is imported for it."""
    try:
        return bool(json.loads((place / MARK).read_text("utf-8")).get("code") == code_hash())
    except (OSError, ValueError):
        return False


def is_built(recipe: Recipe, place: Path) -> bool:
    try:
        mark = json.loads((place / MARK).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return bool(mark.get("recipe") == recipe.fingerprint)


def build(recipe: Recipe, shelf: Path) -> Path:
    """The folder of the model, made now if it is not there."""
    place = shelf / recipe.name
    if is_built(recipe, place):
        note_code(place)
        print(f"{recipe.name}: already built", flush=True)
        return place
    shelf.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    draft = Path(tempfile.mkdtemp(prefix=f".{recipe.name}-", dir=shelf))
    try:
        facts = recipe.make(draft)
        facts |= {
            "name": recipe.name,
            "recipe": recipe.fingerprint,
            "code": code_hash(),
            "seconds": round(time.monotonic() - began, 1),
        }
        (draft / MARK).write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
        draft.chmod(0o755)
        put_in_place(draft, place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    print(f"{recipe.name}: built in {facts['seconds']} s", flush=True)
    return place


def note_code(place: Path) -> None:
    """This code has looked at the build and found it good."""
    mark = json.loads((place / MARK).read_text("utf-8"))
    if mark.get("code") != code_hash():
        draft = place / f".{MARK}-{os.getpid()}"
        draft.write_text(json.dumps(mark | {"code": code_hash()}, indent=2) + "\n", "utf-8")
        draft.replace(place / MARK)


def put_in_place(draft: Path, place: Path) -> None:
    """Rename over what is there. Two builders at once both succeed; the last one stays."""
    old = place.with_name(f".{place.name}-old-{os.getpid()}")
    if place.exists():
        place.rename(old)
    try:
        draft.rename(place)
    except OSError:
        # Another builder came first; both made the same thing.
        if not place.exists():
            raise
    shutil.rmtree(old, ignore_errors=True)
