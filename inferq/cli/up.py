"""`inferq up`: checks what can be checked beforehand, then hands over to the stack."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from inferq.cli.options import ConfigFile, Home
from inferq.cli.stack import launch, overrides, ports
from inferq.cli.stack.lock import HomeLock
from inferq.config import Settings, load_settings
from inferq.hooks import loading

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def up(
    config: ConfigFile = None,
    home: Home = None,
    port: Annotated[int | None, typer.Option(help="Port of the API; 0 takes a free one.")] = None,
    model: Annotated[str, typer.Option(help="Also serve this chat model: a folder or a hub id.")] = "",
    vllm: Annotated[bool, typer.Option("--vllm", help="Also serve the demo chat model by vLLM.")] = False,
    flower: Annotated[
        bool, typer.Option("--flower/--no-flower", help="Queue inspection in a browser.")
    ] = True,
) -> None:
    """Start everything on this machine, show when it is ready, and keep it running until Ctrl-C.

    Redis (embedded, unless queue.redis_url is set), API, scheduler, watched
    folders, node agent with its models, and Flower. What dies is started again.
    All state lies in the home; nothing is left running, however this ends.

    [bold]Examples[/bold]
      [cyan]inferq up[/cyan]
      [cyan]inferq up --port 9100 --home ~/inferq-second[/cyan]
      [cyan]inferq up --model ~/models/Qwen3-0.6B[/cyan]
    """
    settings = load_settings(config, home=home, overrides=_port(port))
    loading.load(settings.hooks.enabled)
    changes: dict[str, Any] = {"models": {}, "monitoring": {} if flower else {"flower_enabled": False}}
    if model:
        changes["models"] |= overrides.model_entry(settings, model)
    if vllm:
        changes["models"] |= overrides.vllm_entry(settings)
    if not (settings.home / "run").exists():
        # Nothing runs there, so a taken port is told before the home is made.
        _claim_ports(settings, changes)
    lock = HomeLock(settings.home)
    lock.take()
    settings = load_settings(config, home=home, overrides={**changes, **_claim_ports(settings, changes)})
    url = _local_url(settings.api.host, settings.api.port)
    sys.exit(launch.run(settings, lock=lock, url=url, program=_called(settings)))


def _port(port: int | None) -> dict[str, Any]:
    return {} if port is None else {"api": {"port": port}}


def _claim_ports(settings: Settings, changes: dict[str, Any]) -> dict[str, Any]:
    """The ports as they will be, so that every process knows the one that 0 became."""
    api = ports.claim(
        settings.api.host,
        settings.api.port,
        what="API",
        advice="choose another with --port, or INFERQ__API__PORT",
    )
    monitoring = {"flower_enabled": settings.monitoring.flower_enabled, **changes["monitoring"]}
    if monitoring["flower_enabled"]:
        monitoring["flower_port"] = ports.claim(
            "127.0.0.1",
            settings.monitoring.flower_port,
            what="Flower",
            advice="choose another with INFERQ__MONITORING__FLOWER_PORT, or leave it out with --no-flower",
        )
    return {"api": {"port": api}, "monitoring": monitoring}


def _local_url(host: str, port: int) -> str:
    """An address that works on this machine also where the API listens on all of them."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- compared, not listened on
    reachable = everywhere.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def _called(settings: Settings) -> str:
    """How to call this program from another terminal, for commands that are shown to be pasted."""
    code = launch.code_folder()
    script = code / "bin" / "inferq"
    if Path.cwd() == code and script.exists():
        program = "bin/inferq"
    else:
        program = "inferq" if shutil.which("inferq") or not script.exists() else shlex.quote(str(script))
    usual = settings.home in (Path.cwd() / "data", code / "data")
    return program if usual else f"INFERQ_HOME={shlex.quote(str(settings.home))} {program}"
