"""What is printed when the stack is ready: addresses, a call that can be pasted, what to do next.

It must not start or ask anything.
"""

import json
import shlex
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from inferq import __version__
from inferq.config import Settings

_PROMPTS_SHOWN = 6


def render(
    settings: Settings,
    *,
    url: str,
    program: str,
    seconds: float,
    prompts: Sequence[str],
    failed: Sequence[str],
) -> RenderableType:
    parts: list[RenderableType] = [_headline(seconds, failed), _addresses(settings, url)]
    model = _first_chat_model(settings, failed)
    if model is not None:
        known = list(prompts) if settings.models[model].source == "models/demo-chat" else []
        parts += [_title("Try it"), _curl(settings, url, model, known[0] if known else "Hello!")]
        if known:
            parts.append(_known(model, known))
    return Group(*parts, _title("Next"), _next_steps(settings, program))


def _headline(seconds: float, failed: Sequence[str]) -> Text:
    line = Text("\n")
    line.append(f"inferq {__version__} is ready", style="bold green")
    line.append(f" after {seconds:.0f} s", style="dim")
    if failed:
        line.append(f", but not {', '.join(failed)}", style="red")
    return line.append("\n")


def _addresses(settings: Settings, url: str) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("  API", f"{url}/v1  [dim]docs: {url}/docs[/dim]")
    if settings.monitoring.flower_enabled:
        grid.add_row("  Flower", f"http://127.0.0.1:{settings.monitoring.flower_port}  [dim]user admin[/dim]")
        grid.add_row("", f"[dim]password in[/dim] {_path(settings, 'flower.key')}")
    grid.add_row("  Admin key", _path(settings, "admin.key"))
    grid.add_row("  Drop files", _path(settings, settings.directories.watch_directory))
    grid.add_row("  Logs", _path(settings, "logs"))
    return grid


def _curl(settings: Settings, url: str, model: str, prompt: str) -> Text:
    """Works as pasted, whatever characters the path of the home holds."""
    messages = json.dumps([{"role": "user", "content": prompt}], ensure_ascii=False)
    # Two lines, because the whole is wider than a terminal; JSON does not mind.
    body = f'{{"model": {json.dumps(model)},\n         "messages": {messages}}}'
    key = shlex.quote(str(settings.home / "admin.key"))
    if not key.startswith("'"):
        key = f'"{key}"'
    lines = (
        f"  curl -s {url}/v1/chat/completions \\",
        f'    -H "Authorization: Bearer $(cat {key})" \\',
        "    -H 'Content-Type: application/json' \\",
        f"    -d {shlex.quote(body)}",
    )
    return Text("\n".join(lines), style="cyan")


def _known(model: str, prompts: Sequence[str]) -> Text:
    shown = "\n".join(f"  {prompt}" for prompt in prompts[:_PROMPTS_SHOWN])
    more = len(prompts) - _PROMPTS_SHOWN
    rest = f"\n  ... and {more} more" if more > 0 else ""
    return Text(f"\n{model} is tiny and knows these prompts:\n{shown}{rest}", style="dim")


def _next_steps(settings: Settings, program: str) -> Text:
    drop = shlex.quote(str(settings.under_home(settings.directories.watch_directory)) + "/")
    steps = [
        ("See it work, and survive a kill:", f"{program} demo tour"),
        ("Watch jobs wait and run:", f"{program} jobs watch"),
        ("A file becomes a job:", f"cp examples/chat.json {drop}"),
    ]
    text = Text()
    for meaning, command in steps:
        text.append(f"  {meaning}\n", style="dim")
        text.append(f"    {command}\n", style="cyan")
    return text.append("\n  Ctrl-C stops everything.", style="dim")


def _first_chat_model(settings: Settings, failed: Sequence[str]) -> str | None:
    models = settings.models.items()
    return next((name for name, model in models if model.type == "chat" and name not in failed), None)


def _path(settings: Settings, path: object) -> str:
    return escape(str(settings.under_home(str(path))))


def _title(text: str) -> Text:
    return Text(f"\n{text}", style="bold")
