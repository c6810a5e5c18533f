"""All faults that the nemesis may choose from, by name. A sweep has kinds of its own, in `points`."""

from collections.abc import Iterable, Mapping

from tests.chaos import faults, surroundings
from tests.chaos.faults import Fault
from tests.chaos.ground import Ground


def kinds(base: type[Fault] = Fault) -> list[type[Fault]]:
    """All kinds that have a name of their own, in the order in which they were written."""
    found = [base] if "name" in vars(base) else []
    return found + [kind for sub in base.__subclasses__() for kind in kinds(sub)]


_FILES = (faults.__name__, surroundings.__name__)
FAULTS: dict[str, type[Fault]] = {kind.name: kind for kind in kinds() if kind.__module__ in _FILES}


def needs_of(names: Iterable[str], known: Mapping[str, type[Fault]] = FAULTS) -> set[str]:
    return set().union(*(known[name].needs for name in names))


def offered(ground: Ground) -> list[str]:
    """The names of those that can happen on this ground."""
    return [name for name, kind in FAULTS.items() if kind.needs <= ground.offers]
