"""OpenAI's own client against us: answers, streams, and its classes of errors."""

import asyncio
from collections.abc import AsyncIterator

import openai
import pytest

from inferq.config import Settings
from inferq.job import Failure
from tests.api.stack import CHAT, CHUNKS, DONE, Replica, Stack

MESSAGES = CHAT["messages"]


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key=stack.keys["user"], base_url=f"{stack.url}/openai/v1", max_retries=0, timeout=10
    ) as made:
        yield made


async def test_chat(client: openai.AsyncOpenAI, replica: Replica) -> None:
    call = asyncio.create_task(client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES))
    await replica.answer_one()
    answer = await call
    assert answer.choices[0].message.content == "Hello!"
    assert answer._request_id


async def test_chat_stream(client: openai.AsyncOpenAI, replica: Replica) -> None:
    async def words() -> str:
        stream = await client.chat.completions.create(model="demo-chat", messages=MESSAGES, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    call = asyncio.create_task(words())
    await replica.stream(await replica.claim(), [*CHUNKS, DONE])
    assert await call == "Hello!"


async def test_an_error_inside_a_stream_is_raised(client: openai.AsyncOpenAI, replica: Replica) -> None:
    async def words() -> None:
        stream = await client.chat.completions.create(model="demo-chat", messages=MESSAGES, stream=True)
        async for _ in stream:
            pass

    call = asyncio.create_task(words())
    attempt = await replica.claim()
    await replica.chunks(attempt, CHUNKS)
    await replica.fail(attempt)
    with pytest.raises(openai.APIError, match="the engine failed"):
        await call


async def test_embeddings_come_as_base64(client: openai.AsyncOpenAI, settings: Settings) -> None:
    embedder = Replica(settings, "demo-embed")
    call = asyncio.create_task(client.embeddings.create(model="demo-embed", input="x"))
    attempt = await embedder.claim()
    assert b'"encoding_format":"base64"' in attempt.job.spec.body
    await embedder.result(
        attempt,
        b'{"object":"list","model":"demo-embed","usage":{"prompt_tokens":1,"total_tokens":1},'
        b'"data":[{"object":"embedding","index":0,"embedding":"AACAPwAAAEA="}]}',
    )
    assert (await call).data[0].embedding == [1.0, 2.0]
    await embedder.close()


async def test_models(client: openai.AsyncOpenAI) -> None:
    assert "demo-chat" in [model.id async for model in client.models.list()]
    assert (await client.models.retrieve("demo-chat")).owned_by == "inferq"


async def test_error_classes(client: openai.AsyncOpenAI, stack: Stack, replica: Replica) -> None:
    create = client.chat.completions.create
    with pytest.raises(openai.NotFoundError) as missing:
        await create(model="none", messages=MESSAGES)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as wrong:
        await create(model="demo-chat", messages=MESSAGES, temperature=9)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="iq-wrong").models.list()
    with pytest.raises(openai.PermissionDeniedError):
        await client.with_options(api_key=stack.keys["readonly"]).chat.completions.create(
            model="demo-chat", messages=MESSAGES
        )
    for status, kind in ((429, openai.RateLimitError), (500, openai.InternalServerError)):
        call = asyncio.create_task(create(model="demo-chat", messages=MESSAGES))
        await replica.fail(await replica.claim(), Failure(code="x", message="y", status=status))
        with pytest.raises(kind):
            await call
