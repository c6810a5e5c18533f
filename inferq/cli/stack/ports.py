"""Whether ports are free, found out before anything is started: so the message can be one line."""

import contextlib
import errno
import socket

import psutil

from inferq import errors


def claim(host: str, port: int, *, what: str, advice: str) -> int:
    """`port`, or a free one for 0. Raises ConfigError in one line that names the port and what to set."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                reason = f"is taken{_by_whom(port)}"
            else:
                reason = f"cannot be used on {host} ({error.strerror})"
            raise errors.ConfigError(f"port {port} ({what}) {reason}; {advice}") from error
        return int(probe.getsockname()[1])


def listener(port: int) -> int | None:
    """The process that listens on a port. Other users' processes are not shown to everybody."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("inet"):
            listens = connection.status == psutil.CONN_LISTEN and tuple(connection.laddr)[1:2] == (port,)
            if listens and connection.pid:
                return int(connection.pid)
    return None


def _by_whom(port: int) -> str:
    pid = listener(port)
    if pid is not None:
        with contextlib.suppress(psutil.Error):
            return f" by process {pid} ({psutil.Process(pid).name()})"
    return ""
