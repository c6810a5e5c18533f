"""What is refused before it waits: too much for the model's limits, or too long for its context.

Only what cannot fit for certain is refused, because the gateway does not know how many tokens a model's template adds:
the engine refuses the rest. Most prompts have fewer bytes than there is room for tokens, and are never tokenised.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from inferq import errors
from inferq.config import Settings
from inferq.endpoints.length import TEMPLATE, Prompt
from inferq.request import Request, encode
from inferq.tokenizing import Counter, Tokenizers


class Admission:
    def __init__(self, settings: Settings):
        self._settings = settings
        self._tokenizers = Tokenizers()

    async def admit(self, request: Request) -> None:
        """Raises InvalidRequest for what the model can never serve, or what cannot be passed on.

        A request that waits for others' results is only encoded: it is admitted when they have filled it.
        """
        if request.unfilled:
            request.encoded = encode(request.body)
            return
        context = request.settings.context
        if context is not None:
            doubtful = [each for each in request.prompts if each.most + each.answer > context]
            if doubtful:
                await self._counted(request, doubtful, partial(_refuse_long, request, doubtful, context))
            if request.open_ended:
                await self._counted(request, request.prompts, partial(_bound_answer, request, context))
        if request.large:
            await asyncio.to_thread(request.admit)
        else:
            request.admit()

    async def _counted(
        self, request: Request, prompts: Sequence[Prompt], work: Callable[[Counter], None]
    ) -> None:
        counter = await self._tokenizers.find(self._settings.under_home(request.settings.source))
        size = sum(len(text) for prompt in prompts for text in prompt.texts)
        await self._tokenizers.run(size, partial(work, counter))


def _refuse_long(request: Request, prompts: Sequence[Prompt], context: int, counter: Counter) -> None:
    for prompt in prompts:
        room = context - prompt.answer
        least = prompt.ids + counter.least(prompt.texts, room)
        if least <= room:
            continue
        there = f"at least {least}" if counter.exact or prompt.ids else f"by a careful guess at least {least}"
        asked = f", and {prompt.answer} are asked for" if prompt.answer > 1 else ""
        raise errors.ContextLengthExceeded(
            f"The context of {request.model!r} holds {context} tokens; {prompt.param!r} has {there}{asked}.",
            param=prompt.param,
        )


def _bound_answer(request: Request, context: int, counter: Counter) -> None:
    """An answer that its caller left open ends where the context that the request may use does.

    A guess that leaves no room must not cut an answer for which there may be some: the engine then ends it.
    """
    used = max((counter.likely(prompt.texts, context) for prompt in request.prompts), default=0)
    room = context - used - TEMPLATE
    if room >= 1 or counter.exact:
        request.body[request.endpoint.length[0]] = max(1, room)
