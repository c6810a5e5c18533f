"""Installs the sink engine the way pip installs a third party's: a module and a folder that names its entry point."""

import shutil
from pathlib import Path

NAME = "inferq_chaos_sink"


def install(folder: Path) -> Path:
    """The folder to put on PYTHONPATH."""
    metadata = folder / f"{NAME}-1.0.dist-info"
    metadata.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("sink.py"), folder / f"{NAME}.py")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: inferq-chaos-sink\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[inferq.engines]\nsink = {NAME}:ENGINE\n")
    (metadata / "RECORD").write_text("")
    return folder
