"""`inferq config`: the configuration without a server."""

import json as jsonlib
from typing import Annotated, Any

import typer
import yaml

from inferq.cli import output
from inferq.cli.options import ConfigFile
from inferq.config import Settings, load_settings
from inferq.hooks import loading

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Check and show the configuration, print its schema.",
)


@app.command()
def check(config: ConfigFile = None, json: Annotated[bool, output.JSON] = False) -> None:
    """Say whether the configuration can be used; every wrong key and missing hook is named (exit code 2)."""
    settings = load_settings(config)
    loading.load(settings.hooks.enabled)
    if json:
        output.show_json({"ok": True, "models": sorted(settings.models), "home": str(settings.home)})
    else:
        names = ", ".join(settings.models) or "none"
        output.console.print(f"[green]ok[/green]  {len(settings.models)} models: {names}", soft_wrap=True)


@app.command()
def show(
    config: ConfigFile = None,
    all_keys: Annotated[bool, typer.Option("--all", help="Also keys at their default.")] = False,
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Show the configuration as the processes see it: file, then environment. Secrets stay hidden.

    [bold]Example[/bold]
      [cyan]INFERQ__API__PORT=9100 inferq config show[/cyan]
    """
    settings = load_settings(config)
    tree: dict[str, Any] = settings.model_dump(mode="json", exclude_unset=not all_keys)
    if json:
        output.show_json({**tree, "home": str(settings.home)})
    else:
        print(f"# INFERQ_HOME={settings.home}")
        print(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True) if tree else "{}", end="")


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file: every key with its meaning and default.

    [bold]Example[/bold]
      [cyan]inferq config schema > scheduler_config.schema.json[/cyan]
    """
    print(render_schema(), end="")


def render_schema() -> str:
    """The text of `scheduler_config.schema.json`."""
    made = Settings.model_json_schema()
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    made["title"] = "inferq configuration"
    for internal in ("home", "root"):
        made["properties"].pop(internal)
    return jsonlib.dumps(made, indent=2, ensure_ascii=False) + "\n"
