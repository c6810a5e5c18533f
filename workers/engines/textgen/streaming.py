"""What engines that write text do around an answer: whether it has room, and its stream. Must not know a model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from workers.engines import encoding
from workers.engines.failures import BadRequest, ContextLengthExceeded
from workers.engines.textgen.answer import Choice, Delta, Form, Usage
from workers.engines.textgen.output import Piece

Pieces = AsyncGenerator[tuple[Choice, list[Delta], Piece], None]
"""(choice, its new deltas, the piece they came with); closing it ends what makes them."""


def allowance(context: int, prompt: int, limit: int | None, param: str) -> int:
    """How many tokens may be said after a prompt of so many: what was asked, or what the context leaves.

    Raises BadRequest for an empty prompt, ContextLengthExceeded for one that leaves too little.
    """
    room = context - prompt
    if not prompt:
        raise BadRequest("The prompt is empty.", param=param)
    if room < 1 or (limit is not None and limit > room):
        asked = f" and {limit} tokens were asked for" if limit is not None else ""
        raise ContextLengthExceeded(
            f"The context holds {context} tokens; the prompt has {prompt}{asked}.", param=param
        )
    return room if limit is None else limit


async def streamed(pieces: Pieces, form: Form, usage: Usage, *, tell_usage: bool) -> AsyncIterator[bytes]:
    """The events of an answer, its usage in one of its own where that is wanted, and the end."""
    try:
        async for choice, deltas, piece in pieces:
            events = form.events(choice, deltas, piece)
            if events:
                yield events
    finally:
        await pieces.aclose()
    if tell_usage:
        yield form.chunk([], usage)
    yield encoding.DONE
