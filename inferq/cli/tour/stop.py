"""What the stops of the tour share: the claim that must hold, and the indented lines they tell."""

from typing import NoReturn

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
    output.console.print(Padding(f"[{style}]{line}[/{style}]" if style else line, (0, 0, 0, 3)))


def ask(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]
