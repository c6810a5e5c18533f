"""`inferq submit`: a prompt, a job file or standard input becomes one job or several.

It must not decide anything about the work: defaults that need knowledge are the server's.
"""

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from inferq import errors
from inferq.cli import answer, exits, following, job_file, job_table, output
from inferq.client import Client, JobJson
from inferq.lanes import parse_lane

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

_FAR_SECONDS = 3600.0
"""A job that is due later is not awaited, unless --wait says so."""


Source = Annotated[str, typer.Argument(help="A prompt, the path of a job file, or - for standard input.")]
Model = Annotated[str, typer.Option("--model", "-m", help="Default: the first that fits.")]
Endpoint = Annotated[
    str, typer.Option("--endpoint", "-e", help="chat/completions, completions or embeddings.")
]
Priority = Annotated[str, typer.Option("--priority", "-p", help="high, medium, low, or 0 (low) to 9 (high).")]
Wait = Annotated[
    bool | None,
    typer.Option(
        "--wait/--async",
        help="Wait for the answer, or print the job's id and end. Default: wait, unless it is due in over an hour.",
        show_default=False,
    ),
]
Stream = Annotated[
    bool, typer.Option("--stream", help="Show the text while it is made; the job ends with this command.")
]
RunAt = Annotated[
    str, typer.Option(help="Not before: 2026-12-31T18:00:00Z, an offset instead of Z, or Unix seconds.")
]
ExpiresIn = Annotated[str, typer.Option(help="Give it up unless it has started: 90s, 15m, 2h, 7d.")]
ExpiresAt = Annotated[str, typer.Option(help="The same as a time, as for --run-at.")]
After = Annotated[list[str] | None, typer.Option(help="A job that must have succeeded first; repeatable.")]
OnFailure = Annotated[str, typer.Option(help="fail (default) or run, when one of those does not succeed.")]
Webhook = Annotated[str, typer.Option(help="An https URL that is told when it has ended.")]
Metadata = Annotated[list[str] | None, typer.Option(help="NAME=VALUE, kept with it; repeatable.")]
Key = Annotated[str, typer.Option(help="Sent again with the same key, it stays one job.")]


@app.command()
def submit(
    source: Source,
    model: Model = "",
    endpoint: Endpoint = "",
    priority: Priority = "",
    wait: Wait = None,
    stream: Stream = False,
    run_at: RunAt = "",
    expires_in: ExpiresIn = "",
    expires_at: ExpiresAt = "",
    after: After = None,
    on_dependency_failure: OnFailure = "",
    webhook: Webhook = "",
    metadata: Metadata = None,
    idempotency_key: Key = "",
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Send work and wait for the answer.

    Without --stream the job is durable: Ctrl-C ends the waiting, not the job.
    A job file holds {"model", "body", ...}, a request body, an array of those,
    or one per line.

    [bold]Examples[/bold]
      [cyan]inferq submit "What is the capital of France?"[/cyan]
      [cyan]inferq submit "Hello!" --stream[/cyan]
      [cyan]inferq submit examples/batch.jsonl --priority low --async[/cyan]
      [cyan]inferq submit report.json --run-at 2026-12-31T18:00:00Z --async[/cyan]
      [cyan]cat notes.txt | inferq submit - --endpoint embeddings --json[/cyan]
    """
    chosen = {"model": model, "endpoint": endpoint, "priority": priority and parse_lane(priority).value}
    terms = _given(
        run_at=_moment(run_at),
        expires_in=expires_in,
        expires_at=_moment(expires_at),
        depends_on=after,
        on_dependency_failure=on_dependency_failure,
        webhook=webhook,
        metadata=_pairs(metadata or []),
    )
    if stream and (terms or idempotency_key):
        raise errors.InvalidRequest(
            "--stream shows a text now; it goes with no option that says when a job runs, whom it tells or what is kept"
        )
    with Client.from_environment() as client:
        jobs = [{**job_file.complete(job, chosen, client.models), **terms} for job in _read(source, endpoint)]
        if stream:
            _stream(client, jobs, json)
            return
        finished = _awaited(client, _accepted(client, jobs, idempotency_key), wait, json)
    for done in finished:
        output.show_json(done) if json else answer.show(done)
    if any(job["state"] != "succeeded" for job in finished):
        sys.exit(exits.JOB_NOT_SUCCEEDED)


def _accepted(client: Client, jobs: list[dict[str, Any]], key: str) -> list[JobJson]:
    if key and len(jobs) != 1:
        raise errors.InvalidRequest(f"--idempotency-key goes with one job, and these are {len(jobs)}")
    return [client.submit(job, idempotency_key=key) for job in jobs]


def _awaited(client: Client, jobs: list[JobJson], wait: bool | None, as_json: bool) -> list[Any]:
    """Those to be waited for, in their terminal states; the others are shown as they were accepted."""
    awaited = [job for job in jobs if (_is_soon(job) if wait is None else wait)]
    for job in jobs:
        if job not in awaited:
            _show_accepted(job, as_json)
    if not as_json:
        following.note_stops(client, jobs)
    return [following.wait_for(client, job, quiet=as_json) for job in awaited]


def _given(**fields: Any) -> dict[str, Any]:
    """The fields of the jobs that the command line says anything about."""
    return {name: value for name, value in fields.items() if value not in ("", None, [], {})}


def _moment(text: str) -> str | float:
    """Unix seconds as a number; anything else is the server's to read."""
    try:
        return float(text)
    except ValueError:
        return text


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise errors.InvalidRequest(f"--metadata takes NAME=VALUE, not {text!r}")
        pairs[name] = value
    return pairs


def _read(source: str, endpoint: str) -> list[dict[str, Any]]:
    if source == "-":
        return job_file.parse(sys.stdin.read(), "standard input", endpoint)
    try:
        is_file = Path(source).is_file()
    except OSError:
        is_file = False  # a long prompt is no possible file name
    if is_file:
        return job_file.parse(Path(source).read_text(encoding="utf-8"), source, endpoint)
    if source.endswith((".json", ".jsonl")) or _looks_like_a_path(source):
        raise errors.ConfigError(f"there is no file {source}")
    return [job_file.from_prompt(source, endpoint)]


def _looks_like_a_path(source: str) -> bool:
    """One word whose folder exists: a mistyped name rather than a prompt."""
    return "/" in source and not any(map(str.isspace, source)) and Path(source).parent.is_dir()


def _stream(client: Client, jobs: list[dict[str, Any]], as_json: bool) -> None:
    for job in jobs:
        body = {**job["body"], "model": job["model"]}
        if job.get("priority"):
            body["priority"] = job["priority"]
        for chunk in client.stream(job["endpoint"], body):
            if as_json:
                output.show_json(chunk)
            else:
                print(answer.piece(chunk), end="", flush=True)
        if not as_json:
            print()


def _is_soon(job: JobJson) -> bool:
    return (job.get("due_at") or 0.0) < time.time() + _FAR_SECONDS


def _show_accepted(job: Any, as_json: bool) -> None:
    if as_json:
        output.show_json(job)
        return
    place = f", position {job['position']}" if job.get("position") else ""
    if job["state"] == "scheduled":
        place = f", {job_table.starts(job)}"
    print(job["id"])
    output.notes.print(
        f"[dim]{job['model']}, {job['lane']} lane{place}; inferq jobs watch {job['id']}[/dim]", soft_wrap=True
    )
