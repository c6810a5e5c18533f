"""Which models lie in a folder: recognised by their files, without loading anything, within bounds.

Links are followed, because large models often lie on another disk; no folder is entered twice. Hidden folders are
left out: a pull gathers its files in one.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from inferq.modelscan.found import Found, Kind, free_name, suggestion, unconfigured
from inferq.modelscan.rules import file_kind, folder_kind

__all__ = ["Found", "Kind", "free_name", "scan", "suggestion", "unconfigured"]

DEPTH = 5
MOST_ENTRIES = 50_000
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".ckpt", ".gguf")


def scan(folder: Path) -> list[Found]:
    """The models below a folder, by their ids; none when it is not there."""
    found: list[Found] = []
    walk = _Walk(folder, MOST_ENTRIES)
    for path, names in walk.folders(folder, DEPTH):
        kind = folder_kind(path, names)
        if kind is not None:
            model = walk.measured(path, kind)
            if model is not None:
                walk.leave(path)
                found.append(model)
            continue
        for name in sorted(names):
            kind = file_kind(path / name, names)
            model = walk.measured(path / name, kind) if kind else None
            if model is not None:
                found.append(model)
    return sorted(found, key=lambda each: each.id)


@dataclass(slots=True)
class _Walk:
    """The folders below `root`, none twice, until `left` entries have been seen."""

    root: Path
    left: int
    _seen: set[tuple[int, int]] = field(default_factory=set)
    _left_out: set[Path] = field(default_factory=set)

    def folders(self, folder: Path, depth: int) -> Iterator[tuple[Path, frozenset[str]]]:
        """Each folder and the names in it, those above first."""
        entries = self._entries(folder)
        if entries is None:
            return
        yield folder, frozenset(entry.name for entry in entries)
        if depth == 0 or folder in self._left_out:
            return
        for entry in entries:
            if not entry.name.startswith(".") and _is_folder(entry):
                yield from self.folders(folder / entry.name, depth - 1)

    def leave(self, folder: Path) -> None:
        """Do not go further into this one."""
        self._left_out.add(folder)

    def measured(self, path: Path, kind: Kind) -> Found | None:
        """The model with its size; None where there are only names and no weights."""
        size, weights, newest = 0, 0, 0.0
        for file in self._files(path):
            try:
                facts = file.stat()
            except OSError:
                continue
            size += facts.st_size
            weights += facts.st_size if file.suffix.lower() in _WEIGHTS else 0
            newest = max(newest, facts.st_mtime)
        if weights == 0:
            return None
        return Found(
            id=path.relative_to(self.root).as_posix(),
            path=path.resolve(),
            kind=kind,
            size=size,
            modified=newest,
        )

    def _files(self, path: Path) -> Iterator[Path]:
        if path.is_file():
            yield path
            return
        for top, folders, names in os.walk(path):
            folders.sort()
            for name in names:
                self.left -= 1
                if self.left < 0:
                    return
                file = Path(top, name)
                if file.is_file():
                    yield file

    def _entries(self, folder: Path) -> list[os.DirEntry[str]] | None:
        try:
            facts = folder.stat()
            if (facts.st_dev, facts.st_ino) in self._seen:
                return None
            self._seen.add((facts.st_dev, facts.st_ino))
            entries = []
            with os.scandir(folder) as found:
                for entry in found:
                    self.left -= 1
                    if self.left < 0:
                        break
                    # A name that is no text, or that would steer a terminal, is nobody's model.
                    if entry.name.isprintable():
                        entries.append(entry)
            return sorted(entries, key=lambda entry: entry.name)
        except OSError:
            return None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
