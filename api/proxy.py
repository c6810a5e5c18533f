"""Proxy mode: `/openai/{model}:{context}/v1/...` serves any requested model name from one local model.

The path is rewritten before routing, so every endpoint has it. Must not know which models exist.
"""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from inferq.request import Proxy

_PATH = re.compile(
    r"/openai/(?P<model>.+?)(?::(?P<context>[1-9][0-9]{0,8})(?P<thousand>[kK]?))?(?P<rest>/v1/.*)"
)


class ProxyMode:
    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/openai/"):
            match = _PATH.fullmatch(scope["path"])
            if match and match["model"] != "v1":
                scope["proxy"] = proxy_of(match)
                scope["path"] = match["rest"]
        await self._app(scope, receive, send)


def proxy_of(match: re.Match[str]) -> Proxy:
    """A `k` is 1,024 tokens, as in the names of models."""
    context = int(match["context"]) * (1024 if match["thousand"] else 1) if match["context"] else None
    return Proxy(match["model"], context)
