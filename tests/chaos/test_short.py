"""A minute of the durability suite with a fixed seed. `make chaos SEED=n` goes on for longer and with other seeds."""

import os
from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.catalogue import offered
from tests.chaos.session import Finding, Plan, in_folder
from tests.chaos.site import USUAL
from tests.engines.process import ROOT

SEED = "1"
SECONDS = 40.0


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_minute_of_faults() -> None:
    root = Path(os.environ.get("INFERQ_CHAOS_ROOT", ROOT))
    told: list[str] = []

    def judge(finding: Finding, folder: Path) -> None:
        told.append(report.summary(finding))
        if finding.violations:
            told.extend((report.failure(finding, SEED), f"logs and journals: {folder}"))

    finding = in_folder(Plan(SEED, SECONDS, offered(USUAL), root), keep=False, judge=judge)
    assert not finding.violations, "\n".join(told)
    assert finding.evidence.windows, "no fault was injected"
