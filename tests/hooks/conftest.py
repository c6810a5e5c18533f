"""Hooks as others install them: a module and its dist-info on the path."""

import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from inferq.config.sections import HookRules
from inferq.hooks import Hooks

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a hook: its name, the body of its class."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name: str, body: str, requires: str = ">=0.0.0a0") -> None:
        module = f"hook_{name}"
        text = dedent(body)
        inner = "".join(f"    {line}\n" for line in text.strip().splitlines()) or "    pass\n"
        (tmp_path / f"{module}.py").write_text(
            "import sys, threading, time\nfrom inferq.hooks import Refused\n"
            f"class Hook:\n    requires = {requires!r}\n    seen = []\n{inner}"
        )
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[inferq.hooks]\n{name} = {module}:Hook\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return make


def enabled(*names: str, timeout: float = 5.0) -> Hooks:
    return Hooks(HookRules(enabled=list(names), timeout=timeout))


def seen(name: str) -> list[object]:
    """What the hook has noted in its `seen`."""
    found: list[object] = sys.modules[f"hook_{name}"].Hook.seen
    return found
