"""The start of a stack, in order: demo models, Redis, job store, the rest, and the models that are to be
warm.

It decides when the stack is ready, and must not stop or restart anything.
"""

import socket
import time
from typing import Any

from inferq import errors
from inferq.cli.stack import demo_models, program
from inferq.cli.stack.supervisor import Supervisor
from inferq.client import Client
from inferq.config import Settings

_LOOK_EVERY_SECONDS = 0.5


class Startup:
    def __init__(self, settings: Settings, supervisor: Supervisor, *, url: str) -> None:
        self._settings = settings
        self._supervisor = supervisor
        self._board = supervisor.board
        self._url = url
        self._redis = program.redis(settings)
        self._services = program.services(settings)
        self._warm = [name for name, model in settings.models.items() if model.warm]
        self.failed: dict[str, str] = {}
        self.said_by_init = ""

    def run(self) -> None:
        """Returns when all is ready, or has failed for good. Raises when the stack cannot run."""
        self._announce()
        self._build_demo_models()
        if self._redis:
            self._supervisor.start([self._redis])
            self._supervisor.wait_until(self._redis_answers)
            self._board.set("redis", "ready")
        self.said_by_init = self._supervisor.run_once(program.INIT)
        self._supervisor.start(self._services)
        with Client.from_environment({"INFERQ_URL": self._url}, home=self._settings.home) as client:
            self._supervisor.wait_until(client.is_ready)
            self._board.set("api", "ready")
            self._await_models(client)
        self._supervisor.starting = False

    def _announce(self) -> None:
        if demo_models.missing(self._settings):
            self._board.expect("demo", "demo models")
        for each in (self._redis, program.INIT, *self._services):
            if each:
                self._board.expect(each.name, each.title)
        for name in self._warm:
            self._board.expect(f"model {name}", f"model {name}")

    def _build_demo_models(self) -> None:
        if not demo_models.missing(self._settings):
            return
        self._board.say("The demo models are made on this machine, once: a minute or two.", style="dim")
        self._supervisor.run_once(demo_models.builder(self._settings))

    def _redis_answers(self) -> bool:
        """Redis speaks lines too, so a bare socket will do; while it loads its data it answers otherwise."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            try:
                connection.connect(str(self._settings.run_dir / "redis.sock"))
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
            except OSError:
                return False

    def _await_models(self, client: Client) -> None:
        waiting = set(self._warm)
        for name in waiting:
            self._board.set(f"model {name}", "starting")
        looked = 0.0
        while waiting:
            self._supervisor.pump()
            if time.monotonic() - looked < _LOOK_EVERY_SECONDS:
                continue
            looked = time.monotonic()
            self._settle(client, waiting)

    def _settle(self, client: Client, waiting: set[str]) -> None:
        """Take out of `waiting` the models whose fate is known."""
        try:
            status = client.status()
            models = {model["id"]: model.get("info", {}) for model in client.models()}
        except errors.Unavailable:
            return  # the API is being restarted
        if status.get("nodes"):
            self._board.set("node", "ready")
        for name in sorted(waiting):
            state = models.get(name, {}).get("state", "stopped")
            if state == "ready":
                self._board.set(f"model {name}", "ready")
            elif state == "failed":
                self.failed[name] = _reason(status, name)
                self._board.set(f"model {name}", "failed", self.failed[name])
            else:
                self._board.set(f"model {name}", "starting", "" if state == "stopped" else state)
                continue
            waiting.discard(name)


def _reason(status: dict[str, Any], model: str) -> str:
    for replica in status.get("replicas") or ():
        if replica.get("model") == model and replica.get("error"):
            return str(replica["error"])
    return "it could not be loaded; see the log of the node"
