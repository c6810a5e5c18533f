"""The client that drops job files into the watched folder. Each file must come back as one result or one error."""

import json
import random
import threading

from tests.chaos.history import Journal
from tests.chaos.site import WIDE, Site


class Dropper(threading.Thread):
    """Writes a file beside the folder's other ones and renames it, as the documentation asks."""

    def __init__(self, site: Site, seed: str, stopping: threading.Event) -> None:
        super().__init__(name="files", daemon=True)
        self.rng = random.Random(f"{seed}/files")
        self.journal = Journal(site.journals, "files")
        self.inbox = site.home / "llm_generated" / "raw"
        self.stopping = stopping
        self.defect: BaseException | None = None

    def run(self) -> None:
        count = 0
        while not self.stopping.wait(self.rng.uniform(0.3, 2.0)):
            count += 1
            marker = f"files-{count}"
            body = {
                "model": WIDE,
                "messages": [{"role": "user", "content": f"#{marker} !delay={self.rng.choice((0, 0.2))}"}],
                "metadata": {"marker": marker},
            }
            self.journal.note("drop", marker=marker, file=f"{marker}.json")
            partial = self.inbox / f"{marker}.tmp"
            partial.write_text(json.dumps(body))
            partial.rename(self.inbox / f"{marker}.json")
        self.journal.close()
