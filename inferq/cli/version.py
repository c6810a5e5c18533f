"""`inferq version`."""

import sys
from typing import Annotated

import typer

from inferq import __version__
from inferq.cli import output

app = typer.Typer(add_completion=False)


@app.command()
def version(json: Annotated[bool, output.JSON] = False) -> None:
    """Print the version of inferq and of Python."""
    python = ".".join(str(part) for part in sys.version_info[:3])
    if json:
        output.show_json({"inferq": __version__, "python": python})
    else:
        print(f"inferq {__version__} (Python {python})")
