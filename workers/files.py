"""The files of a job on their way to the engine and back: artifacts in, artifacts out.

In a job's body a file is `artifact:` and its sha256. An engine gets a `file:` URL below the folder it shares with its
replica, or the bytes as a `data:` URL (base64 alone where OpenAI's form has no URL). Pictures that an engine answers
with become artifacts here, so that no record carries them.
"""

import base64
import binascii
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson

from inferq import errors
from inferq.endpoints import ENDPOINTS, Answer
from inferq.engine import MediaForm
from inferq.job import JobSpec
from storage.artifacts import ArtifactStore
from workers.signs import recognised

MARK = "artifact:"
_PICTURE_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


class Files:
    """Hands the files of jobs to one engine."""

    def __init__(self, artifacts: ArtifactStore, form: MediaForm):
        self._artifacts = artifacts
        self._form = form

    @asynccontextmanager
    async def handed(self, spec: JobSpec) -> AsyncIterator[bytes]:
        """The body with its files where the engine finds them, for as long as the block runs.

        Raises NotFound for an artifact that is gone, StoreUnavailable.
        """
        endpoint = ENDPOINTS.get(spec.endpoint)
        if endpoint is None or b'"artifact:' not in spec.body:
            yield spec.body
            return
        body = orjson.loads(spec.body)
        async with AsyncExitStack() as held:
            for place in endpoint.files(body):
                if isinstance(place.named, str) and place.named.startswith(MARK):
                    place.put(await self._hand(place.named.removeprefix(MARK), place.bare, held))
            yield orjson.dumps(body)

    async def _hand(self, sha256: str, bare: bool, held: AsyncExitStack) -> str:
        if self._form is MediaForm.PATH:
            path = await held.enter_async_context(self._artifacts.local_path(sha256))
            return path.as_uri()
        found = await self._artifacts.stat(sha256)
        if found is None:
            raise errors.NotFound(f"The file {sha256} of this job is gone.")
        data = b"".join([chunk async for chunk in self._artifacts.open_read(sha256)])
        content = base64.b64encode(data).decode()
        return content if bare else f"data:{found.media_type};base64,{content}"

    @staticmethod
    def answers_files(spec: JobSpec) -> bool:
        """Whether the answer of a job is a file, which is an artifact even when it is small."""
        endpoint = ENDPOINTS.get(spec.endpoint)
        return endpoint is not None and endpoint.answer is Answer.FILE

    async def kept(self, spec: JobSpec, data: bytes) -> bytes:
        """An engine's JSON answer with its pictures as artifacts: `artifact` in place of `b64_json`."""
        endpoint = ENDPOINTS.get(spec.endpoint)
        if endpoint is None or endpoint.answer is not Answer.PICTURES:
            return data
        answer: dict[str, Any] = orjson.loads(data)
        named = _PICTURE_TYPES.get(str(answer.get("output_format", "png")), "image/png")
        for entry in answer.get("data", ()):
            text = entry.pop("b64_json", None)
            if isinstance(text, str):
                picture = _decoded(text)
                # The format is named only when somebody asked for one; a workflow or an upstream may write another.
                found, _ = recognised(picture) or (named, "")
                media_type = found if found.startswith("image/") else named
                stored = await self._artifacts.put(picture, media_type)
                entry["artifact"] = stored.sha256
        return orjson.dumps(answer)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise errors.EngineError("the engine answered with a picture that is no base64") from error
