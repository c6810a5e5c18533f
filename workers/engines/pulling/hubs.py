"""What a source consists of: its files with sizes and checksums, asked of a hub, a server or a folder.

Hugging Face's API gives the SHA-256 of large files and git's blob id of small ones, ModelScope's the SHA-256 of all.
What a hub says is checked before it is used: a path that leaves the model's folder refuses the whole pull.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from inferq.sources import Kind, Source, check_digest, check_path
from workers.engines.pulling.troubles import CannotPull, Passing
from workers.engines.pulling.web import Web

MOST_FILES = 20_000
MANIFEST = ".inferq-pull.json"
_TRUNCATED = 3000
"""ModelScope lists so many files at most, without saying that there are more."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a source. `blob` is git's SHA-1 of a blob; `etag` marks a version where there is no checksum."""

    path: str
    url: str
    size: int | None = None
    sha256: str | None = None
    blob: str | None = None
    etag: str | None = None

    @property
    def version(self) -> str | None:
        """Differs when the content does; None when nobody can tell."""
        return self.sha256 or self.blob or self.etag


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a source at one revision: the commit, where the hub names one."""

    revision: str | None
    files: tuple[RemoteFile, ...]


@dataclass(frozen=True, slots=True)
class Hub:
    """How to reach one kind of hub. `library` and `constant` say where its library keeps the public address, `token`
    names the variable of the token, and `cookie` is where older parts of the hub look for it.
    """

    kind: Kind
    variables: tuple[str, ...]
    library: str
    constant: str
    token: str
    cookie: str | None = None

    @property
    def setting(self) -> str:
        """The configuration's name for its address."""
        return "hub.huggingface" if self.kind is Kind.HUGGINGFACE else "hub.modelscope"

    @property
    def advice(self) -> str:
        """What helps where it cannot be reached."""
        return (
            f"{self.setting} in the configuration, or {self.variables[0]}, names a mirror; without a network, pull "
            "from a folder: /path/of/the/model"
        )

    def credentials(self) -> dict[str, str]:
        """The headers that let us in; none without a token."""
        token = os.environ.get(self.token, "").strip()
        if not token:
            return {}
        cookie = {"Cookie": f"{self.cookie}={token}"} if self.cookie else {}
        return {"Authorization": f"Bearer {token}", **cookie}


HUBS = {
    Kind.HUGGINGFACE: Hub(
        Kind.HUGGINGFACE, ("HF_ENDPOINT",), "huggingface_hub.constants", "ENDPOINT", "HF_TOKEN"
    ),
    Kind.MODELSCOPE: Hub(
        Kind.MODELSCOPE,
        ("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"),
        "modelscope_hub.constants",
        "DEFAULT_ENDPOINT",
        "MODELSCOPE_API_TOKEN",
        "m_session_id",
    ),
}


async def base_of(hub: Hub, configured: str, pythons: Sequence[str]) -> str:
    """The hub's address: configured, else from the environment, else what its library says, here or in an engine's
    environment. Raises CannotPull that says what to set.
    """
    named = configured or next((os.environ[name] for name in hub.variables if os.environ.get(name)), "")
    base = named or _constant(hub) or await _asked(hub, pythons)
    if not base:
        raise CannotPull(
            f"No address of this hub is known: set {hub.variables[0]} or {hub.setting}.", code="hub_unknown"
        )
    base = base if "://" in base else f"https://{base}"
    return base.rstrip("/")


def _constant(hub: Hub) -> str:
    try:
        return str(getattr(importlib.import_module(hub.library), hub.constant))
    except (ImportError, AttributeError):
        return ""


async def _asked(hub: Hub, pythons: Sequence[str]) -> str:
    """The libraries of hubs lie in the environments of the engines."""
    program = f"import {hub.library} as library; print(library.{hub.constant})"
    for python in pythons:
        try:
            child = await asyncio.create_subprocess_exec(
                python,
                "-c",
                program,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError:
            continue
        try:
            async with asyncio.timeout(30):
                said, _ = await child.communicate()
        except TimeoutError:
            child.kill()
            continue
        if child.returncode == 0 and said.strip().startswith(b"http"):
            return said.decode().strip()
    return ""


async def list_files(web: Web, source: Source, base: str, revision: str | None) -> Listing:
    """Raises CannotPull, Passing."""
    if source.kind is Kind.FOLDER:
        return await asyncio.to_thread(_folder, source.value)
    if revision is not None and source.kind is Kind.URL:
        raise CannotPull("A URL has no 'revision'.", code="invalid_value", param="revision")
    found = {Kind.HUGGINGFACE: _huggingface, Kind.MODELSCOPE: _modelscope, Kind.URL: _url}[source.kind]
    return await found(web, source.value, base, revision)


async def _huggingface(web: Web, name: str, base: str, revision: str | None) -> Listing:
    wanted = quote(revision or "main", safe="")
    answer = await web.json(f"{base}/api/models/{name}/revision/{wanted}?blobs=true")
    siblings = _list(answer, "siblings")
    commit = answer.get("sha")
    commit = commit if isinstance(commit, str) and commit.isalnum() else None
    at = commit or wanted
    files = []
    for entry in siblings:
        path = _path(entry.get("rfilename"))
        lfs: dict[str, Any] = entry["lfs"] if isinstance(entry.get("lfs"), dict) else {}
        blob = entry.get("blobId")
        files.append(
            RemoteFile(
                path=path,
                url=f"{base}/{name}/resolve/{at}/{quote(path)}",
                size=_size(lfs.get("size", entry.get("size"))),
                sha256=_digest(lfs.get("sha256")),
                blob=blob if not lfs and isinstance(blob, str) and len(blob) == 40 else None,
                etag=commit,
            )
        )
    return Listing(commit, _consistent(files))


async def _modelscope(web: Web, name: str, base: str, revision: str | None) -> Listing:
    wanted = revision or "master"
    root = f"{base}/api/v1/models/{name}/repo"
    answer = await web.json(f"{root}/files?{urlencode({'Revision': wanted, 'Recursive': 'True'})}")
    if not isinstance(answer, dict) or answer.get("Code", 200) != 200:
        raise CannotPull(f"The hub does not list {name}: {str(answer)[:200]}", code="source_not_found")
    entries = _list(answer.get("Data"), "Files")
    if len(entries) >= _TRUNCATED:
        raise CannotPull(
            f"{name} has {_TRUNCATED} files or more, and the hub lists no more; name 'files'.",
            code="hub_error",
        )
    files = []
    for entry in entries:
        if entry.get("Type") == "tree":
            continue
        path = _path(entry.get("Path"))
        revised = entry.get("Revision")
        files.append(
            RemoteFile(
                path=path,
                url=f"{root}?{urlencode({'Revision': wanted, 'FilePath': path})}",
                size=_size(entry.get("Size")),
                sha256=_digest(entry.get("Sha256")),
                etag=revised if isinstance(revised, str) and revised else None,
            )
        )
    return Listing(None, _consistent(files))


async def _url(web: Web, url: str, _base: str, _revision: str | None) -> Listing:
    """One file, by what its server says of it; a server that cannot say is asked again by the download."""
    try:
        path = _path(Source(Kind.URL, url).name)
    except ValueError as error:
        raise CannotPull(f"The URL ends in no name of a file: {error}.", param="source") from error
    try:
        async with web.get(url, method="HEAD") as response:
            size, tag = response.content_length, response.headers.get("ETag")
    except (CannotPull, Passing) as error:
        if isinstance(error, CannotPull) and error.error_code == "address_refused":
            raise
        size, tag = None, None
    strong = tag if tag and not tag.startswith("W/") else None
    return Listing(None, (RemoteFile(path, url, size=size or None, etag=strong),))


def _folder(folder: str) -> Listing:
    """All regular files; a link to one is read as one, as in the caches of hubs. Hidden folders are left out."""
    root = Path(folder)
    if root.is_file():
        root, found = root.parent, [root]
    elif root.is_dir():
        found = [
            file
            for file in root.rglob("*")
            if not any(part.startswith(".") for part in file.relative_to(root).parts[:-1])
        ]
    else:
        raise CannotPull(f"{folder} is no folder of this server.", code="source_not_found")
    files = []
    for file in found:
        if file.is_file() and file.name != MANIFEST:
            facts = file.stat()
            path = _path(file.relative_to(root).as_posix())
            tag = f"{facts.st_size}-{facts.st_mtime_ns}"
            files.append(RemoteFile(path, file.as_uri(), size=facts.st_size, etag=tag))
    return Listing(None, _consistent(files))


def choose(
    listing: Listing,
    *,
    files: Sequence[str] | None,
    include: Sequence[str] | None,
    exclude: Sequence[str] | None,
    sha256: str | Mapping[str, str] | None,
) -> Listing:
    """The files that are wanted, with the caller's checksums. Raises CannotPull."""
    known = {file.path for file in listing.files}
    absent = [path for path in files or () if path not in known]
    if absent:
        raise CannotPull(
            f"The source has no {', '.join(absent[:5])}.", param="files", code="source_not_found"
        )
    chosen = [
        file
        for file in listing.files
        if (files is None or file.path in files)
        and (include is None or _matches(file.path, include))
        and not _matches(file.path, exclude or ())
    ]
    if not chosen:
        raise CannotPull("None of the source's files is wanted.", code="source_not_found")
    return replace(listing, files=tuple(_with_digests(chosen, sha256)))


def _with_digests(
    files: Sequence[RemoteFile], sha256: str | Mapping[str, str] | None
) -> Iterable[RemoteFile]:
    if isinstance(sha256, str):
        if len(files) != 1:
            raise CannotPull(
                f"One checksum for {len(files)} files; give an object of path and checksum.", param="sha256"
            )
        sha256 = {files[0].path: sha256}
    given = {path: check_digest(digest) for path, digest in (sha256 or {}).items()}
    absent = set(given) - {file.path for file in files}
    if absent:
        raise CannotPull(f"There is no file {min(absent)!r} to check.", param="sha256")
    for file in files:
        wanted = given.get(file.path)
        if wanted and file.sha256 and wanted != file.sha256:
            raise CannotPull(
                f"The hub has {file.path} with the SHA-256 {file.sha256}, not {wanted}.",
                code="checksum_mismatch",
            )
        yield replace(file, sha256=wanted) if wanted else file


def _matches(path: str, patterns: Sequence[str]) -> bool:
    """As a shell would; a pattern without a slash is also tried on the file's own name."""
    name = path.rpartition("/")[2]
    return any(fnmatchcase(path, each) or ("/" not in each and fnmatchcase(name, each)) for each in patterns)


def _consistent(files: list[RemoteFile]) -> tuple[RemoteFile, ...]:
    """Refuses lists that no folder can hold: twice the same path, or a file that is a folder too."""
    paths = [file.path for file in files]
    folders = {"/".join(path.split("/")[:depth]) for path in paths for depth in range(1, path.count("/") + 1)}
    if len(set(paths)) != len(paths) or folders & set(paths):
        raise CannotPull("The source names one path twice.", code="hub_error")
    return tuple(sorted(files, key=lambda file: file.path))


def _list(answer: Any, key: str) -> list[dict[str, Any]]:
    found = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise CannotPull("The hub's answer is no list of files.", code="hub_error")
    if len(found) > MOST_FILES:
        raise CannotPull(f"The source has more than {MOST_FILES} files.", code="hub_error")
    return found


def _path(value: Any) -> str:
    try:
        path = check_path(value)
    except ValueError as error:
        raise CannotPull(f"A file of the source is refused: {error}.", code="hub_error") from error
    if path == MANIFEST:
        raise CannotPull(f"The source has a file {MANIFEST}, which is ours.", code="hub_error")
    return path


def _size(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise CannotPull(f"The hub gives a file the size {str(value)[:50]}.", code="hub_error")
    return value


def _digest(value: Any) -> str | None:
    if value is None or value == "":
        return None
    try:
        return check_digest(value)
    except ValueError as error:
        raise CannotPull(f"The hub gives a checksum that is none: {error}.", code="hub_error") from error


def is_local(file: RemoteFile) -> bool:
    return urlsplit(file.url).scheme == "file"
