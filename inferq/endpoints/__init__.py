"""The endpoints that make jobs, one row per path. Pure: knows no HTTP, no Redis and no engine's library."""

from inferq.endpoints.catalogue import PULL
from inferq.endpoints.endpoint import Answer, Body, Endpoint, FileFacts, FileKind, FilePlace, Files
from inferq.endpoints.images import EDITS, GENERATIONS
from inferq.endpoints.newer import MESSAGES, RESPONSES
from inferq.endpoints.sound import SPEECH, TRANSCRIPTIONS, TRANSLATIONS
from inferq.endpoints.text import CHAT, COMPLETIONS
from inferq.endpoints.vectors import EMBEDDINGS, RERANK
from inferq.endpoints.video import VIDEO

__all__ = [
    "ENDPOINTS",
    "Answer",
    "Body",
    "Endpoint",
    "FileFacts",
    "FileKind",
    "FilePlace",
    "Files",
    "default_for",
]

ENDPOINTS: dict[str, Endpoint] = {
    endpoint.path: endpoint
    for endpoint in (
        *(CHAT, COMPLETIONS, RESPONSES, MESSAGES),
        *(EMBEDDINGS, RERANK),
        *(GENERATIONS, EDITS, VIDEO),
        *(SPEECH, TRANSCRIPTIONS, TRANSLATIONS),
        PULL,
    )
}


def default_for(model_type: str) -> Endpoint:
    """The endpoint that a job for a model of this type means when it names none."""
    return next(endpoint for endpoint in ENDPOINTS.values() if endpoint.takes[0] == model_type)
