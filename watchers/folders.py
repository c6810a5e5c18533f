"""The five folders of one watched directory: where they are, whether they can be used, and that one process has them.

It moves nothing and reads no job file.
"""

import contextlib
import errno
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from inferq import errors
from inferq.config import Settings
from watchers.names import PARTIAL

_LOCK = ".watcher.lock"
_REFUSALS = {
    errno.EXDEV: "is on another file system than {inbox}; files are moved between them, so they must share one",
    errno.EACCES: "cannot be written",
    errno.EPERM: "cannot be written",
    errno.EROFS: "is on a read-only file system",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """Absolute paths. Job files go inbox → temp → archive or errors; results come into `results`."""

    inbox: Path
    temp: Path
    archive: Path
    errors: Path
    results: Path

    @classmethod
    def of(cls, settings: Settings) -> "Folders":
        """Raises ConfigError when two are the same."""
        configured = settings.directories
        paths = {
            "watch_directory": settings.under_home(configured.watch_directory),
            "temp_directory": settings.under_home(configured.temp_directory),
            "archive_directory": settings.under_home(configured.archive_directory),
            "error_directory": settings.under_home(configured.error_directory),
            "output_directory": settings.under_home(configured.output_directory),
        }
        if len({path.resolve() for path in paths.values()}) < len(paths):
            raise errors.ConfigError(f"directories: {', '.join(paths)} must be five different folders")
        inbox, temp, archive, failed, results = paths.values()
        return cls(inbox=inbox, temp=temp, archive=archive, errors=failed, results=results)

    @property
    def all(self) -> tuple[Path, ...]:
        return self.inbox, self.temp, self.archive, self.errors, self.results

    @property
    def source_prefix(self) -> str:
        """What `source` of all jobs from here starts with."""
        return f"file:{self.inbox}/"

    def make(self) -> None:
        """Make what is missing. Raises OSError."""
        for path in self.all:
            path.mkdir(parents=True, exist_ok=True)

    def prepare(self) -> None:
        """Make the folders, and try them out. Raises ConfigError in one line."""
        try:
            self.make()
        except OSError as error:
            raise errors.ConfigError(
                f"directories: cannot make {error.filename}: {error.strerror}"
            ) from error
        for path in self.all:
            self._try_out(path)
        self._remove_partials()

    def lock(self) -> int | None:
        """A descriptor whose owner alone has the folders until it is closed; None while another process has them."""
        descriptor = os.open(self.temp / _LOCK, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            # Some network file systems have no locks; there a second watcher is the operator's care.
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        return descriptor

    def _try_out(self, path: Path) -> None:
        """A rename from temp to the folder: it must be writable, and on the same file system."""
        probe, arrived = self.temp / f".probe{PARTIAL}", path / f".probed{PARTIAL}"
        try:
            probe.touch()
            probe.rename(arrived)
            arrived.unlink()
        except OSError as error:
            # Anything else, such as a full disk, may pass by itself; the loops wait for that.
            if error.errno in _REFUSALS:
                reason = _REFUSALS[error.errno].format(inbox=self.inbox)
                raise errors.ConfigError(f"directories: {path} {reason}") from error
        finally:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)

    def _remove_partials(self) -> None:
        """Files that a killed predecessor had not finished writing."""
        for path in (self.results, self.errors):
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.name.startswith(".") and entry.name.endswith(PARTIAL):
                        with contextlib.suppress(OSError):
                            Path(entry.path).unlink()
