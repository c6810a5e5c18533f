"""Each planted mistake still has its place in the source. That it is caught takes minutes: `make chaos-mutants`."""

from pathlib import Path

import pytest

from tests.chaos.mutants import MUTANTS, Mutant, planted


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_its_place_is_there(mutant: Mutant, tmp_path: Path) -> None:
    root = planted(mutant, tmp_path)
    changed = (root / mutant.file).read_text()
    assert mutant.new in changed
    if mutant.file.endswith(".py"):
        compile(changed, mutant.file, "exec")
