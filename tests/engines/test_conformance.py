"""Every engine of ours passes the suite that `inferq.testing` offers to all. A new one joins by a case in conftest."""

from inferq.testing import Conformance


class TestOurEngines(Conformance):
    pass
