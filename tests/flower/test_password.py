"""The key file: made once, kept, never readable by others."""

import stat
from pathlib import Path

import pytest

from inferq import errors
from queues.flower import password


def test_it_is_made_at_the_first_start_and_kept(tmp_path: Path):
    file = tmp_path / "home" / "flower.key"
    made = password(file)
    assert len(made) >= 24
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert password(file) == made
    assert [path.name for path in file.parent.iterdir()] == ["flower.key"]


def test_others_lose_the_right_to_read_it(tmp_path: Path):
    file = tmp_path / "flower.key"
    file.write_text("mine\n")
    file.chmod(0o644)
    assert password(file) == "mine"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_an_empty_password_is_refused(tmp_path: Path):
    file = tmp_path / "flower.key"
    file.write_text("\n")
    with pytest.raises(errors.ConfigError, match="is empty"):
        password(file)
