"""Flower, the queue inspector, in this process: with this installation's Celery app, on loopback, with a password.

It shows what the task events say: each job under its own id, the model as its name. It holds no history of its own, and
nothing depends on it. Its revoke and terminate buttons reach the replicas; see `queues.remote`.
"""

import logging
import os
import secrets
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from flower.app import Flower
from flower.command import extract_settings, setup_logging
from flower.options import options
from flower.urls import settings as web_settings
from tornado.options import parse_command_line

from inferq import errors
from inferq.config import Settings
from queues.celery_app import make_app

log = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
USER = "admin"
KEY_FILE = "flower.key"
OFFLINE_AFTER = 60
"""Seconds after which a replica or gateway that is gone leaves the list of workers."""
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Run times in seconds: Flower's own buckets end at 10."""


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Raises ConfigError when the port is taken or the password cannot be kept."""
    parse_command_line([sys.argv[0]])
    options.address = ADDRESS
    options.port = settings.monitoring.flower_port
    options.basic_auth = [f"{USER}:{password(settings.home / KEY_FILE)}"]
    options.persistent = False
    options.purge_offline_workers = OFFLINE_AFTER
    options.inspect_timeout = 3000.0
    options.task_runtime_metric_buckets = list(BUCKETS)
    options.tasks_columns = "name,uuid,state,kwargs,received,started,runtime,worker"
    extract_settings()
    setup_logging()
    server = Flower(capp=make_app(settings), options=options, **web_settings)
    try:
        port = server.start_http_server()
    except OSError as error:
        raise errors.ConfigError(
            f"monitoring.flower_port: {options.port} is taken ({error.strerror})"
        ) from error
    signal.signal(signal.SIGTERM, _stop)
    log.info("Flower listens on http://%s:%s as user %s", ADDRESS, port, USER)
    try:
        server.start()
    except (KeyboardInterrupt, SystemExit):
        server.stop()
    return 0


def password(file: Path) -> str:
    """The password of `admin`; made at the first start, readable by the owner only."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f".{file.name}.{os.getpid()}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as writer:
            writer.write(secrets.token_urlsafe(24) + "\n")
        try:
            os.link(fresh, file)
        except FileExistsError:
            file.chmod(0o600)
        finally:
            fresh.unlink()
        known = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise errors.ConfigError(f"{file}: {error.strerror}") from error
    if not known:
        raise errors.ConfigError(f"{file} is empty; remove it and a new password is made")
    return known


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)
