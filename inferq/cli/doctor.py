"""`inferq doctor`: one line per thing that inferq needs, each with what to do about it. It changes nothing."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from inferq import errors
from inferq.cli import exits, output
from inferq.cli.checks import engines, hooks, machine
from inferq.cli.checks.finding import Finding, fail, ok
from inferq.cli.options import ConfigFile, Home
from inferq.config import Settings, load_settings

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


@app.command()
def doctor(
    config: ConfigFile = None,
    home: Home = None,
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Look for what would keep inferq from working on this machine. Code 1 when something would.

    [bold]Example[/bold]
      [cyan]inferq doctor --json | jq -r '.[] | select(.level != "ok") | .advice'[/cyan]
    """
    findings = []
    for finding in _examine(config, home):
        findings.append(finding)
        if not json:
            _show(finding)
    if json:
        output.show_json([finding._asdict() for finding in findings])
    if any(finding.level == "fail" for finding in findings):
        sys.exit(exits.INTERNAL)


def _examine(config: Path | None, home: Path | None) -> Iterator[Finding]:
    yield from machine.python()
    try:
        settings = load_settings(config, home=home)
    except errors.ConfigError as error:
        yield fail("configuration", error.message, "inferq config schema tells every key")
        return
    yield ok("configuration", _summary(settings))
    yield from machine.redis(settings)
    yield from machine.home(settings)
    yield from machine.addresses(settings)
    yield from engines.environments(settings)
    yield from engines.entry_points(settings)
    yield from engines.models(settings)
    yield from hooks.hooks(settings)
    yield from machine.accelerators()


def _summary(settings: Settings) -> str:
    models = ", ".join(settings.models) or "no models"
    return f"{len(settings.models)} models ({models}), home {settings.home}"


def _show(finding: Finding) -> None:
    style = _STYLES[finding.level]
    output.console.print(
        f"[{style}]{finding.level:<4}[/{style}]  [bold]{escape(finding.subject)}[/bold]  {escape(finding.found)}",
        soft_wrap=True,
    )
    if finding.advice:
        output.console.print(f"      [dim]→ {escape(finding.advice)}[/dim]", soft_wrap=True)
