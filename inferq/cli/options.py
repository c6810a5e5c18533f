"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Default: INFERQ_CONFIG, else scheduler_config.yaml."),
]
Home = Annotated[Path | None, typer.Option(help="Folder of all state. Default: INFERQ_HOME, else data.")]
