"""`inferq dead`: the jobs that failed for good: list them, see why, run them again, purge them."""

import functools
import inspect
import json as jsonlib
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.markup import escape

from inferq import errors
from inferq.cli import exits, job_table, output
from inferq.cli.jobs import parse_body
from inferq.client import Client
from inferq.lanes import parse_lane

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="List, group, show, requeue and purge jobs that failed for good.",
)

MOST_AT_ONCE = 1000
"""Jobs that one call of the API requeues or purges."""

Ids = Annotated[list[str] | None, typer.Argument(metavar="[JOB]...", help="Ids of failed jobs.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
All = Annotated[bool, typer.Option("--all", help="Every one, where no id and no filter is given.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]

Filters = dict[str, str | None]
_FILTERS = {
    "model": typer.Option("--model", "-m", help="Only this model."),
    "lane": typer.Option("--lane", "-l", help="Only high, medium or low."),
    "tenant": typer.Option("--tenant", help="Only this tenant."),
    "source": typer.Option("--source", help="Where they came from: api, or a watched folder."),
    "code": typer.Option("--code", "-c", help="Only this error code."),
    "since": typer.Option("--since", help="Failed then or later: 2h (ago), a date, Unix seconds."),
    "until": typer.Option("--until", help="Failed before: 7d (ago), a date, Unix seconds."),
}


def _filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each filter, where its parameter `filters` stands: it gets those that were named."""

    @functools.wraps(command)
    def called(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in _FILTERS}
        command(filters={name: value for name, value in chosen.items() if value}, **given)

    signature = inspect.signature(command)
    parameters: list[inspect.Parameter] = []
    for own in signature.parameters.values():
        if own.name != "filters":
            parameters.append(own.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        for name, option in _FILTERS.items():
            wanted = Annotated[str, option]
            parameters.append(inspect.Parameter(name, own.KEYWORD_ONLY, default="", annotation=wanted))
    called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return called


@app.command("list")
@_filtered
def list_dead(
    filters: Filters,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="Jobs per page.")] = 20,
    cursor: Annotated[str, typer.Option(help="Go on after an earlier page.")] = "",
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Show failed jobs, the newest failure first.

    [bold]Examples[/bold]
      [cyan]inferq dead list --since 2h[/cyan]
      [cyan]inferq dead list --code out_of_memory --json | jq -r '.data[].id'[/cyan]
    """
    with Client.from_environment() as client:
        page = client.dead(limit=limit, cursor=cursor, **filters)
    if json:
        output.show_json(page)
        return
    if not page["data"]:
        output.notes.print("[dim]no failed jobs[/dim]")
        return
    output.console.print(job_table.failures(page["data"]))
    if page["has_more"]:
        output.notes.print(f"[dim]more: --cursor {page['next_cursor']}[/dim]")


@app.command()
@_filtered
def groups(
    filters: Filters,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="Most causes.")] = 20,
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Show why jobs failed, the most frequent cause first.

    [bold]Example[/bold]
      [cyan]inferq dead groups --since 1d[/cyan]
    """
    with Client.from_environment() as client:
        found = client.dead_groups(limit=limit, **filters)
    if json:
        output.show_json(found)
        return
    if not found["data"]:
        output.notes.print("[dim]no failed jobs[/dim]")
        return
    table = output.table(">JOBS", "MODEL", "CODE", "LAST", "CAUSE")
    table.columns[-1].overflow, table.columns[-1].no_wrap = "fold", False
    for cause in found["data"]:
        code, pattern = escape(cause["code"] or "-"), escape(cause["pattern"])
        last = output.age(cause["last_at"])
        table.add_row(str(cause["count"]), escape(cause["model"]), code, last, pattern)
    output.console.print(table)
    if not found["complete"]:
        output.notes.print(f"[dim]among the newest {found['looked_at']} failed jobs[/dim]")


@app.command()
def show(
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")],
    body: Annotated[bool, typer.Option("--body", help="Only its request, as JSON.")] = False,
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Show one failed job: why it failed, and the request.

    [bold]Example[/bold]
      [cyan]inferq dead show 0199... --body > fixed.json[/cyan]
    """
    with Client.from_environment() as client:
        found = client.dead_job(job)
    if json or body:
        output.show_json(found["body"] if body else found)
        return
    output.console.print(job_table.details(found))  # type: ignore[arg-type]
    output.console.print()
    if found["body"] is None:
        output.notes.print("[dim]the request was not kept[/dim]")
    else:
        print(jsonlib.dumps(found["body"], indent=2, ensure_ascii=False))


@app.command()
@_filtered
def requeue(
    filters: Filters,
    jobs: Ids = None,
    everything: All = False,
    body: Annotated[str, typer.Option(help="Merge patch for each request: JSON, or @FILE.")] = "",
    to_model: Annotated[str, typer.Option("--to-model", help="Run them on another model.")] = "",
    priority: Annotated[str, typer.Option("--priority", "-p", help="high, medium, low, or 0 to 9.")] = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Run failed jobs again, the oldest failure first. Stopped on the way, the same command goes on.

    [bold]Examples[/bold]
      [cyan]inferq dead requeue --model demo-chat --since 2h --dry-run[/cyan]
      [cyan]inferq dead requeue --code context_length_exceeded --body '{"max_tokens": 256}' --yes[/cyan]
    """
    edits: dict[str, Any] = {"model": to_model, "priority": priority and parse_lane(priority).value}
    edits = {name: value for name, value in edits.items() if value}
    if body:
        edits["body"] = parse_body(body)
    wanted = {**_choice(jobs, filters, everything=everything), **({"edits": edits} if edits else {})}
    with Client.from_environment() as client:
        if not dry_run and not yes:
            _confirm("requeue", _repeat(client.dead_requeue, {**wanted, "dry_run": True})["requeued"])
        done = _repeat(client.dead_requeue, {**wanted, "dry_run": dry_run}, progress=not json)
    if json:
        output.show_json(done)
    else:
        _tell_requeued(done)
    if done["refused"]:
        sys.exit(exits.CODES[errors.Conflict])


@app.command()
@_filtered
def purge(
    filters: Filters,
    jobs: Ids = None,
    everything: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Delete failed jobs for good. Needs an admin key; artifacts stay.

    [bold]Examples[/bold]
      [cyan]inferq dead purge --until 30d --dry-run[/cyan]
      [cyan]inferq dead purge --code context_length_exceeded --yes[/cyan]
    """
    wanted = _choice(jobs, filters, everything=everything)
    with Client.from_environment() as client:
        count = client.dead_purge({**wanted, "dry_run": True, "limit": MOST_AT_ONCE})
        if not dry_run and not yes:
            _confirm("purge", count["purged"], more=count["has_more"])
        done = count if dry_run else _repeat(client.dead_purge, wanted, progress=not json)
    if json:
        output.show_json(done)
        return
    more = " or more" if dry_run and done["has_more"] else ""
    output.console.print(f"{'would purge' if dry_run else 'purged'} {done['purged']}{more}")


def _choice(jobs: list[str] | None, filters: Filters, *, everything: bool) -> dict[str, Any]:
    """What the API calls the choice. Raises InvalidRequest for a choice of nothing."""
    if not (jobs or filters or everything):
        legal = ", ".join(f"--{name}" for name in _FILTERS)
        raise errors.InvalidRequest(
            f"name failed jobs by their ids, by a filter ({legal}), or all of them by --all"
        )
    wanted: dict[str, Any] = {"ids": jobs, "filter": filters, "all": everything}
    return {name: value for name, value in wanted.items() if value}


def _confirm(what: str, count: int, *, more: bool = False) -> None:
    if not count:
        return
    many = "1 job" if count == 1 and not more else f"{count}{' or more' if more else ''} jobs"
    if not sys.stdin.isatty():
        raise errors.InvalidRequest(f"{what} {many}: add --yes to do it, or --dry-run to look")
    typer.confirm(f"{what} {many}?", abort=True)


def _repeat(
    call: Callable[[dict[str, Any]], dict[str, Any]], wanted: dict[str, Any], *, progress: bool = False
) -> dict[str, Any]:
    """Call until nothing is left; the sum of the answers."""
    total: dict[str, Any] = {}
    cursor: str | None = None
    while True:
        answer = call({**wanted, "limit": MOST_AT_ONCE, **({"cursor": cursor} if cursor else {})})
        cursor = answer.get("next_cursor")
        for name, value in answer.items():
            # Counts and lists grow; a flag and the end's cursor are those of the last answer.
            sums = isinstance(value, int | list) and not isinstance(value, bool) and name in total
            total[name] = total[name] + value if sums else value
        if not answer["has_more"]:
            return total
        if progress:
            output.notes.print(f"[dim]{total.get('requeued', total.get('purged'))} so far[/dim]")


def _tell_requeued(done: dict[str, Any]) -> None:
    verb = "would requeue" if done["dry_run"] else "requeued"
    output.console.print(f"{verb} {done['requeued']}, refused {done['refused']}")
    if done["waiting"]:
        output.notes.print(f"[dim]{done['waiting']} of them are queued when Redis is back[/dim]")
    for refusal in done["refusals"][:20]:
        output.notes.print(f"{refusal['id']}  [red]{refusal['code']}[/red]: {escape(refusal['message'])}")
    if len(done["refusals"]) > 20:
        output.notes.print(f"[dim]and {len(done['refusals']) - 20} more; --json names all[/dim]")
