"""Tests that need an NVIDIA device. Elsewhere they are skipped, with a word."""

import subprocess
from functools import cache

import pytest

from tests.engines.process import engines_python


@cache
def device() -> str:
    """The name of the device that torch sees; empty for none."""
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    done = subprocess.run([engines_python(), "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def needs_device() -> None:
    if not device():
        pytest.skip("no CUDA device")
