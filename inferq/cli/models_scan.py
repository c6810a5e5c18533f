"""`inferq models scan`: looks into a folder of this machine; needs no server."""

from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.markup import escape

from inferq.cli import options, output
from inferq.config import load_settings
from inferq.modelscan import Found, scan, suggestion, unconfigured

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command("scan")
def scan_models(
    config: options.ConfigFile = None,
    home: options.Home = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also models that are configured already.")
    ] = False,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print the configuration that adds them.")] = False,
    gpu: Annotated[bool, typer.Option("--gpu", help="Propose engines for an accelerator.")] = False,
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Find the models under models/ of INFERQ_HOME that are not configured yet.

    Models are recognised by their files; nothing is loaded.

    [bold]Examples[/bold]
      [cyan]inferq models scan[/cyan]
      [cyan]inferq models scan --yaml >> scheduler_config.yaml[/cyan]  (where it has no models: yet)
    """
    settings = load_settings(config, home=home)
    found = scan(settings.models_dir)
    if not everything:
        found = unconfigured(found, [settings.under_home(model.source) for model in settings.models.values()])
    if json:
        proposals = _proposals(found, gpu, set(settings.models))
        output.show_json(
            [{"id": each.id, **each.facts(), "suggestion": proposals.get(each.id)} for each in found]
        )
    elif as_yaml:
        print(_merged(_proposals(found, gpu, set(settings.models))), end="")
    else:
        _show(found, settings.models_dir)


def _proposals(found: list[Found], gpu: bool, taken: set[str]) -> dict[str, str]:
    """Configuration by id; no name is proposed twice."""
    proposals = {}
    for each in found:
        text = suggestion(each, accelerated=gpu, taken=taken)
        if text:
            proposals[each.id] = text
            taken |= set(yaml.safe_load(text)["models"])
    return proposals


def _merged(proposals: dict[str, str]) -> str:
    models: dict[str, object] = {}
    for text in proposals.values():
        models |= yaml.safe_load(text)["models"]
    return str(yaml.safe_dump({"models": models}, sort_keys=False, allow_unicode=True)) if models else ""


def _show(found: list[Found], folder: Path) -> None:
    if not found:
        output.notes.print(f"[dim]nothing to configure in {escape(str(folder))}[/dim]", soft_wrap=True)
        return
    table = output.table("MODEL", "TYPE", "ENGINE", "FAMILY", ">SIZE", ">PARAMETERS", "QUANTISATION", "NOTE")
    for each in found:
        kind = each.kind
        table.add_row(
            escape(each.id),
            kind.type or f"({kind.role})",
            "/".join(kind.engines) or "-",
            escape(kind.family or "-"),
            output.size(each.size),
            output.count(kind.parameters),
            escape(kind.quantisation or "-"),
            escape(kind.note or ""),
        )
    output.console.print(table)
    if any(each.kind.engines for each in found):
        output.notes.print("[dim]inferq models scan --yaml prints their configuration[/dim]", soft_wrap=True)
