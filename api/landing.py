"""The landing page as HTML: what runs, how to call it, where to go. Everything that is not ours is escaped.

The page is one document without references to other hosts. Its script is allowed by its digest, nothing else is.
"""

import base64
import hashlib
import json
import re
import shlex
from html import escape
from importlib.resources import files
from typing import Any

import inferq
from api.context import Context
from api.fleet import Fleet, Part

_HERE = files("api") / "pages"
_PAGE = (_HERE / "landing.html").read_text("utf-8")
_SCRIPT = (_HERE / "landing.js").read_text("utf-8")
_DIGEST = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_PLACE = re.compile(r"\{\{(\w+)\}\}")
_MOST_PROMPTS = 12
_FALLBACK_PROMPT = "Hello!"

HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src 'sha256-{_DIGEST}'; style-src 'unsafe-inline'; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def page(context: Context, fleet: Fleet, parts: tuple[Part, Part], base: str) -> str:
    """The page for callers who reached us as `base`, such as http://127.0.0.1:9000."""
    redis, database = parts
    status = "unhealthy" if not redis.ok else "healthy" if database.ok else "degraded"
    prompts = _prompts(context)
    values = {
        "status": status,
        "status_text": {"healthy": "healthy", "degraded": "the database is away"}.get(
            status, "Redis is away"
        ),
        "version": escape(inferq.__version__),
        "links": _links(context),
        "models": _cards(context, fleet),
        "try_it": _try_it(context, prompts),
        "key_file": escape(str(context.settings.home / "admin.key")),
        "lines": "".join(_shell(*line) for line in _lines(context, prompts, base)),
        "base": escape(base),
        "script": _SCRIPT,
    }
    return _PLACE.sub(lambda match: values[match[1]], _PAGE)


def _links(context: Context) -> str:
    links = {"API docs": "/docs", "Health": "/health", "Metrics": "/metrics"}
    monitoring = context.settings.monitoring
    if monitoring.flower_enabled and monitoring.flower_port:
        links["Flower"] = f"http://127.0.0.1:{monitoring.flower_port}/"
    return "".join(f'<a href="{escape(target)}">{escape(text)}</a>' for text, target in links.items())


def _cards(context: Context, fleet: Fleet) -> str:
    if not context.catalog.models:
        return (
            '<div class="card"><p>No models are configured yet. Add one to scheduler_config.yaml.</p></div>'
        )
    return "".join(_card(fleet, name, model) for name, model in context.catalog.models.items())


def _card(fleet: Fleet, name: str, model: Any) -> str:
    state = fleet.state_of(name)
    waiting = sum((fleet.waiting(name) or {}).values())
    running = sum(each.busy for each in fleet.replicas or [] if each.model == name)
    facts = [model.type, f"engine {model.engine}", f"{running} running", f"{waiting} waiting"]
    facts += [
        f"on {each.device}" for each in fleet.replicas or [] if each.model == name and each.state == "ready"
    ]
    shown = "".join(f'<span class="fact">{escape(fact)}</span>' for fact in facts)
    return (
        f'<article class="card"><h3><i class="dot {escape(state)}"></i>{escape(name)}'
        f'<span class="state">{escape(state)}</span></h3><p>{escape(model.description)}</p>'
        f'<div class="facts">{shown}</div></article>'
    )


def _chat_models(context: Context) -> list[str]:
    return [name for name, model in context.catalog.models.items() if model.type == "chat"]


def _try_it(context: Context, prompts: list[str]) -> str:
    names = _chat_models(context)
    if not names:
        return ""
    chips = "".join(
        f'<button type="button" data-prompt="{escape(text)}">{escape(text)}</button>' for text in prompts
    )
    options = "".join(f"<option>{escape(name)}</option>" for name in names)
    first = escape(prompts[0] if prompts else _FALLBACK_PROMPT)
    return (
        f'<h2>Try it</h2><div class="prompts">{chips}</div><form id="try">'
        f'<select id="model" aria-label="Model">{options}</select>'
        '<input id="key" type="password" autocomplete="off" placeholder="API key" aria-label="API key">'
        f'<input id="prompt" value="{first}" aria-label="Prompt"><button>Send</button></form>'
        '<pre id="answer" aria-live="polite"></pre>'
    )


def _lines(context: Context, prompts: list[str], base: str) -> list[tuple[str, str]]:
    """What a line does, and the line to paste."""
    key = f'-H "Authorization: Bearer $(cat {shlex.quote(str(context.settings.home / "admin.key"))})"'
    lines = []
    for name in _chat_models(context)[:1]:
        prompt = prompts[0] if prompts else _FALLBACK_PROMPT
        chat: dict[str, Any] = {"model": name, "messages": [{"role": "user", "content": prompt}]}
        job = {"model": name, "body": {"messages": chat["messages"]}, "priority": "low"}
        streamed = {**chat, "stream": True}
        lines += [
            ("A chat", _post(f"{base}/v1/chat/completions", key, chat)),
            (
                "The same as a stream, in the high lane",
                _post(f"{base}/v1/chat/completions", f"-N {key} -H 'X-Priority: high'", streamed),
            ),
            ("A durable job in the low lane; the answer is its id", _post(f"{base}/v1/jobs", key, job)),
        ]
    for name in [name for name, model in context.catalog.models.items() if model.type == "embedding"][:1]:
        vector = {"model": name, "input": "a sentence"}
        lines.append(("An embedding", _post(f"{base}/v1/embeddings", key, vector)))
    return [*lines, ("Models, replicas, nodes and queues", f"curl {base}/status {key}")]


def _post(url: str, options: str, body: dict[str, Any]) -> str:
    text = shlex.quote(json.dumps(body, ensure_ascii=False))
    return f"curl {url} {options} \\\n  -H 'Content-Type: application/json' \\\n  -d {text}"


def _shell(caption: str, line: str) -> str:
    return (
        f'<p class="caption">{escape(caption)}</p><div class="shell"><pre>{escape(line)}</pre>'
        '<button class="copy" type="button">copy</button></div>'
    )


def _prompts(context: Context) -> list[str]:
    """Prompts that the first chat model knows, when its folder tells them."""
    for name in _chat_models(context)[:1]:
        file = context.settings.under_home(context.catalog.models[name].source) / "prompts.json"
        try:
            found = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError):
            return []
        texts = found if isinstance(found, list | dict) else []
        return [text for text in texts if isinstance(text, str)][:_MOST_PROMPTS]
    return []
