"""Starting a real engine process for a test, talking to it, and waiting for what it shows."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import pytest

from inferq.testing import RunningEngine as EngineProcess
from inferq.testing import eventually
from inferq.testing.process import started
from workers.engines.demo.shelf import is_seen

__all__ = ["EngineProcess", "eventually"]

ROOT = Path(__file__).parents[2]
ENGINES_PYTHON = Path(os.environ.get("INFERQ_ENGINES_PYTHON", ROOT / ".venv-engines" / "bin" / "python"))
MODELS = Path(os.environ.get("INFERQ_TEST_MODELS", ROOT / ".cache" / "models"))
START_S = 90.0
LIGHT = ("noop", "pull", "remote", "comfyui")  # run under the gateway's Python
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def engines_python() -> str:
    """The interpreter that has torch. Missing, it fails a CI run and skips any other."""
    if not ENGINES_PYTHON.exists():
        reason = f"no engine environment at {ENGINES_PYTHON} (see INFERQ_ENGINES_PYTHON)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return str(ENGINES_PYTHON)


@contextmanager
def spawn(
    module: str,
    folder: Path,
    model: str = "none",
    *,
    options: dict[str, Any] | None = None,
    slots: int = 4,
    media: Path | None = None,
    env: dict[str, str] | None = None,
) -> Iterator[EngineProcess]:
    """Start an engine without waiting for it; end it in any case."""
    name, address = f"public-{module}", folder / f"{module}-{os.urandom(3).hex()}.sock"
    python = sys.executable if module in LIGHT else engines_python()
    argv = [python, "-m", f"workers.engines.{module}", "--model", model, "--served-name", name]
    argv += ["--uds", str(address), "--slots", str(slots), "--options", json.dumps(options or {})]
    argv += [] if media is None else ["--media", str(media)]
    everything = ENVIRONMENT | (env or {})
    with started(argv, address, name, everything, ROOT) as engine:
        yield engine


@contextmanager
def over_tcp(module: str, name: str) -> Iterator[str]:
    """An engine that needs no model, on a port of its own; the address it answers at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [sys.executable, "-m", f"workers.engines.{module}", "--model", "none", "--served-name", name]
    with subprocess.Popen([*argv, "--port", str(port)], cwd=ROOT, env=ENVIRONMENT) as process:
        try:
            eventually(lambda: answers(f"http://127.0.0.1:{port}/health"), f"{module} ready", START_S)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def answers(url: str) -> bool:
    try:
        return httpx2.get(url).status_code == 200
    except httpx2.TransportError:
        return False


@contextmanager
def running(module: str, folder: Path, model: str = "none", **kwargs: Any) -> Iterator[EngineProcess]:
    """Start an engine and wait until it is ready."""
    with spawn(module, folder, model, **kwargs) as engine:
        eventually(engine.ready, f"{module} ready", START_S)
        yield engine


@cache
def demo_model(name: str) -> Path:
    """A demo model, built on first use. The builder is asked again only when its code has changed: it takes seconds."""
    place = MODELS / name
    if not is_seen(place):
        argv = [engines_python(), "-m", "workers.engines.demo", "--out", str(MODELS), "--only", name]
        subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True)
    return place


def library(name: str, model: Path, question: Any) -> Any:
    """What the library itself answers; see tests/engines/library.py."""
    argv = [engines_python(), "-m", "tests.engines.library", name, str(model)]
    answer = subprocess.run(
        argv,
        cwd=ROOT,
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
        text=True,
        input=json.dumps(question),
    )
    return json.loads(answer.stdout.splitlines()[-1])
