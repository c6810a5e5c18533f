"""What an engine must do, as tests that anybody can run on an engine of their own.

    from inferq.testing import Case, Conformance, served

    @pytest.fixture(scope="module")
    def case():
        with served(find_engine("mine"), source="/models/mine") as engine:
            yield Case(engine, "/v1/chat/completions", body=..., long=..., streams=True)

    class TestMyEngine(Conformance):
        pass

Needs pytest, which inferq itself does not.
"""

from inferq.testing.conformance import Case, Conformance
from inferq.testing.process import RunningEngine, eventually, served

__all__ = ["Case", "Conformance", "RunningEngine", "eventually", "served"]
