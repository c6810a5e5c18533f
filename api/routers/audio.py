"""Sound: `audio/speech`, `audio/transcriptions`, `audio/translations`."""

from starlette.requests import Request
from starlette.types import ASGIApp

from api import operations
from api.auth import Access
from api.calls import call
from api.routes import Routes
from inferq.endpoints import fields
from inferq.endpoints.sound import BACKGROUND, SPEECH_TABLE, TRANSCRIPTION_TABLE, TRANSLATION_TABLE

routes = Routes("Audio")

_TEXT = operations.called(
    "The text, in the form that was asked for.",
    "application/json",
    "text/plain",
    "application/x-subrip",
    "text/vtt",
    operations.EVENTS,
    job="With `background` or `Prefer: respond-async`: the job.",
)


@routes.route(
    "POST",
    "/audio/speech",
    access=Access.USER,
    summary="Say a text",
    requestBody=operations.body(
        fields.object_schema(SPEECH_TABLE, open_ended=True),
        one={"model": "demo-speech", "input": "Good morning.", "voice": "default", "response_format": "wav"},
    ),
    parameters=operations.CALL_HEADERS,
    responses=operations.called("The sound, sent while it is made.", "audio/*"),
)
async def speech(request: Request) -> ASGIApp:
    """Long texts are said sentence by sentence, and the first one is sent while the next is made."""
    return await call(request, "audio/speech")


@routes.route(
    "POST",
    "/audio/transcriptions",
    access=Access.USER,
    summary="Write down what is said",
    requestBody=operations.form_or_json(
        fields.object_schema({**TRANSCRIPTION_TABLE, "background": BACKGROUND}, open_ended=True)
    ),
    parameters=operations.CALL_HEADERS,
    responses=_TEXT,
)
async def transcriptions(request: Request) -> ASGIApp:
    """A form with a file, as OpenAI's clients send it, or JSON. Files of hours are best sent with `background`: the
    answer is a job with progress and the text so far."""
    return await call(request, "audio/transcriptions")


@routes.route(
    "POST",
    "/audio/translations",
    access=Access.USER,
    summary="Write down in English what is said",
    requestBody=operations.form_or_json(fields.object_schema(TRANSLATION_TABLE, open_ended=True)),
    parameters=operations.CALL_HEADERS,
    responses=_TEXT,
)
async def translations(request: Request) -> ASGIApp:
    """For models that can; others refuse."""
    return await call(request, "audio/translations")
