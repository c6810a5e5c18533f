"""Every error has an exit code, and `--help` tells what each means."""

import pytest

from inferq import errors
from inferq.cli import exits


def family(kind: type[errors.InferqError]) -> list[type[errors.InferqError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in family(child))]


@pytest.mark.parametrize("kind", family(errors.InferqError), ids=lambda kind: kind.__name__)
def test_every_error_class_has_a_row(kind: type[errors.InferqError]) -> None:
    assert kind in exits.CODES


def test_every_code_has_a_meaning_that_help_shows() -> None:
    used = {*exits.CODES.values(), exits.OK, exits.JOB_NOT_SUCCEEDED, exits.INTERRUPTED}
    assert used == set(exits.MEANINGS)
    assert all(meaning in exits.HELP for meaning in exits.MEANINGS.values())


def test_class_of_a_plugin_takes_the_code_above_it() -> None:
    class WeightsMissing(errors.EngineLoadFailed):
        """Made by somebody else."""

    assert exits.code_of(WeightsMissing()) == exits.CODES[errors.EngineLoadFailed]
