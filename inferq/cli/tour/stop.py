"""What the stops of the tour share: the claim that must hold, and the indented lines they tell."""

from typing import Any, NoReturn

from rich.markup import escape
from rich.padding import Padding

from inferq.cli import output

CHAT_MODEL = "demo-chat"
EMBED_MODEL = "demo-embed"


class NotHeldError(Exception):
    """What the tour promised did not come true."""


def hold(claim: object, otherwise: str) -> None:
    if not claim:
        fail(otherwise)


def fail(reason: str) -> NoReturn:
    raise NotHeldError(reason)


def tell(text: str, style: str = "") -> None:
    line = escape(text)
    output.console.print(Padding(f"[{style}]{line}[/{style}]" if style else line, (0, 0, 0, 3), expand=False))


def request(prompt: str) -> dict[str, Any]:
    """Without chance: the model answers what it was taught."""
    return {"model": CHAT_MODEL, "messages": [{"role": "user", "content": prompt}], "temperature": 0}
