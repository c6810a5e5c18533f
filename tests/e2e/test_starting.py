"""What prevents a start is said in one clear line, with an exit status that is not zero."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.stack import Stack
from tests.engines.process import ROOT

PROCESSES = ("api", "queues", "workers", "watchers")


def refusal(module: str, home: Path, config: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and the one line of a process that cannot start."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("INFERQ")}
    argv = [sys.executable, "-m", module, "--config", str(config), "--home", str(home), *arguments]
    ended = subprocess.run(
        argv, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return ended.returncode, line


def written(folder: Path, tree: Any) -> Path:
    file = folder / "config.yaml"
    file.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
    return file


UNBUILT = {"security": {"jwt_enabled": True}}


@pytest.mark.parametrize(
    ("module", "tree", "words"),
    [
        *[(module, UNBUILT, "jwt_enabled: JWT is documented but not built") for module in PROCESSES],
        ("queues", "models: [unclosed", "is not valid YAML"),
        ("workers", {"queue": {"leese": 3}}, "unknown key queue.leese (did you mean lease?)"),
    ],
)
def test_a_configuration_that_cannot_be_used(module: str, tree: Any, words: str, tmp_path: Path) -> None:
    status, line = refusal(module, tmp_path / "home", written(tmp_path, tree))
    assert status == 2
    assert words in line


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    status, line = refusal("workers", tmp_path / "home", tmp_path / "absent.yaml")
    assert (status, "absent.yaml" in line) == (2, True)


def test_a_port_that_is_taken(stack: Stack) -> None:
    status, line = refusal("api", stack.home, stack.config, "--port", str(stack.port))
    assert status == 1
    assert f"127.0.0.1:{stack.port}" in line


def test_a_database_that_nobody_made(tmp_path: Path) -> None:
    status, line = refusal("queues", tmp_path / "home", written(tmp_path, {}))
    assert status == 1
    assert "python -m api --init" in line


@pytest.mark.parametrize(
    ("name", "words"),
    [("nonsense", "MODEL@DEVICE.HOST"), ("nobody@cpu:0.here", "no model 'nobody' is configured")],
)
def test_a_replica_that_cannot_be(name: str, words: str, tmp_path: Path) -> None:
    status, line = refusal("workers", tmp_path / "home", written(tmp_path, {}), "--replica", name)
    assert (status, words in line) == (2, True)
