"""The text in an engine's answer, and how a finished job is shown. It must not fetch anything."""

import json
from typing import Any

from rich.markup import escape

from inferq.cli import output


def show(job: Any) -> None:
    """A finished job: its answer on standard output, anything else about it on standard error."""
    if job["state"] == "succeeded":
        if job.get("result") is None and job.get("artifact"):
            output.notes.print(f"[dim]the result is large: inferq jobs show {job['id']} --result[/dim]")
        else:
            print(text_of(job.get("result")))
        return
    error = job.get("error") or {}
    reason = f": {escape(str(error.get('message') or error.get('code')))}" if error else ""
    output.notes.print(f"{output.state(job['state'])} {job['id']}{reason}")


def text_of(result: Any) -> str:
    """The text of a chat or completion, a short view of embeddings, JSON for anything else."""
    if isinstance(result, dict) and isinstance(result.get("choices"), list):
        return "\n".join(_choice(choice) for choice in result["choices"])
    if isinstance(result, dict) and result.get("object") == "list" and _vectors(result.get("data")):
        return "\n".join(_vector(item["embedding"]) for item in result["data"])
    return json.dumps(result, indent=2, ensure_ascii=False)


def piece(chunk: Any) -> str:
    """The new text in one chunk of a stream."""
    if not isinstance(chunk, dict):
        return ""
    return "".join(_choice(choice) for choice in chunk.get("choices") or ())


def _choice(choice: Any) -> str:
    if "text" in choice:
        return str(choice["text"])
    message = choice.get("message") or choice.get("delta") or {}
    text = [str(message["content"])] if message.get("content") else []
    calls = [
        f"{call['function'].get('name', '')}({call['function'].get('arguments', '')})"
        for call in message.get("tool_calls") or ()
        if call.get("function")
    ]
    return "\n".join(text + calls)


def _vectors(data: Any) -> bool:
    return isinstance(data, list) and all(isinstance(item, dict) and "embedding" in item for item in data)


def _vector(values: Any) -> str:
    if not isinstance(values, list):
        return str(values)[:60]
    head = ", ".join(f"{value:.4f}" for value in values[:4])
    return f"[{head}, ...] ({len(values)} numbers)"
