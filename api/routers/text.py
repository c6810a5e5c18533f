"""Text: `chat/completions`, `completions`, and the newer forms that some engines offer."""

from starlette.requests import Request
from starlette.types import ASGIApp

from api import operations
from api.auth import Access
from api.calls import call
from api.routes import Routes
from inferq.endpoints import fields
from inferq.endpoints.newer import MESSAGE_TABLE, RESPONSE_TABLE
from inferq.endpoints.text import CHAT_TABLE, COMPLETION_TABLE

routes = Routes("Text")

_ANSWERS = operations.called(
    "The answer; with `stream` server-sent events ended by `data: [DONE]`.",
    "application/json",
    operations.EVENTS,
)


@routes.route(
    "POST",
    "/chat/completions",
    access=Access.USER,
    summary="Answer a conversation",
    requestBody=operations.body(
        fields.object_schema(CHAT_TABLE, open_ended=True),
        whole={
            "model": "demo-chat",
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
        },
        stream={
            "model": "demo-chat",
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "stream": True,
            "priority": "high",
        },
    ),
    parameters=operations.CALL_HEADERS,
    responses=_ANSWERS,
)
async def chat_completions(request: Request) -> ASGIApp:
    """OpenAI's chat endpoint. The call waits in its lane until a replica has answered; a caller that hangs up
    cancels it. A parameter that the model's engine cannot honour is refused, never ignored."""
    return await call(request, "chat/completions")


@routes.route(
    "POST",
    "/completions",
    access=Access.USER,
    summary="Continue a text",
    requestBody=operations.body(
        fields.object_schema(COMPLETION_TABLE, open_ended=True),
        whole={"model": "demo-chat", "prompt": "What is the capital of France?", "max_tokens": 16},
    ),
    parameters=operations.CALL_HEADERS,
    responses=_ANSWERS,
)
async def completions(request: Request) -> ASGIApp:
    """OpenAI's older text endpoint, with `suffix` for models that can fill in."""
    return await call(request, "completions")


@routes.route(
    "POST",
    "/responses",
    access=Access.USER,
    summary="Answer, in OpenAI's newer form",
    requestBody=operations.body(
        fields.object_schema(RESPONSE_TABLE, open_ended=True),
        whole={"model": "qwen", "input": "What is the capital of France?"},
    ),
    parameters=operations.CALL_HEADERS,
    responses=_ANSWERS,
)
async def responses(request: Request) -> ASGIApp:
    """OpenAI's responses endpoint, passed through to engines that offer it, such as vLLM. Others answer 404."""
    return await call(request, "responses")


@routes.route(
    "POST",
    "/messages",
    access=Access.USER,
    summary="Answer, in Anthropic's form",
    requestBody=operations.body(
        fields.object_schema(MESSAGE_TABLE, open_ended=True),
        whole={"model": "qwen", "max_tokens": 64, "messages": [{"role": "user", "content": "Hello!"}]},
    ),
    parameters=operations.CALL_HEADERS,
    responses=_ANSWERS,
)
async def messages(request: Request) -> ASGIApp:
    """Anthropic's messages endpoint, passed through to engines that offer it, such as vLLM. Others answer 404."""
    return await call(request, "messages")
