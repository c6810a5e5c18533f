"""A voice on another server: anything that answers OpenAI's `/v1/audio/speech` (vllm-omni, CosyVoice, ...).

A voice to clone travels in the body, as a `data:` URL beside what is said in it. Servers name these fields
differently, so their names are options. What the other server refuses is the caller's fault; anything else that
goes wrong there is tried again by the scheduler.
"""

from __future__ import annotations

import asyncio
import base64
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from workers.engines.failures import BadRequest, EngineFault
from workers.engines.keys import read_key, without_key
from workers.engines.launch import Options
from workers.engines.sounds.decoder import Unreadable
from workers.engines.sounds.decoders import Decoders, Limits
from workers.engines.voices.backend import DEFAULT_VOICE, Facts, Utterance
from workers.engines.voices.sound import RATE, Sound

PATH = "/audio/speech"
ANSWERS = Limits(seconds=900.0, channels=8, patience_s=60.0)
MOST_BYTES = 128 * 1024 * 1024
MOST_ERROR = 64 * 1024
# Our configuration is wrong, not the caller's request.
OURS = (401, 403, 404, 405, 407, 408, 429)


@dataclass(frozen=True)
class UpstreamOptions:
    """Where the server is, and how it names things."""

    url: str
    model: str
    key_env: str
    default_voice: str
    reference_audio_field: str
    reference_text_field: str
    language_field: str
    form: str
    extra: Mapping[str, Any]
    voices: tuple[str, ...]
    languages: tuple[str, ...]
    timeout_s: float


def read_options(options: Options, served_name: str) -> UpstreamOptions:
    """Raises ValueError for a URL that is none."""
    url = options.take("upstream", "")
    if not url.startswith(("http://", "https://")):
        raise ValueError("option 'upstream' must be the http(s) URL of a server, such as http://host:8091/v1")
    return UpstreamOptions(
        url=url.rstrip("/").removesuffix(PATH) + PATH,
        model=options.take("upstream_model", served_name),
        key_env=options.take("upstream_key_env", ""),
        default_voice=options.take("default_voice", ""),
        reference_audio_field=options.take("reference_audio_field", "ref_audio"),
        reference_text_field=options.take("reference_text_field", "ref_text"),
        language_field=options.take("language_field", "language"),
        form=options.take("upstream_format", "wav"),
        extra=options.take("upstream_extra", {}),
        voices=tuple(map(str, options.take("voices", []))),
        languages=tuple(map(str, options.take("languages", []))),
        timeout_s=options.take("upstream_timeout_s", 300.0),
    )


class UpstreamVoice:
    """The other server. Up to `slots` pieces are asked for at once; the others wait in order of arrival."""

    def __init__(self, options: UpstreamOptions, slots: int) -> None:
        """Raises ValueError when the variable that should hold the key holds none."""
        self._options = options
        self._turns = asyncio.Semaphore(slots)
        self._decoders = Decoders(1, ANSWERS, RATE)
        self._pieces = self._waiting = 0
        self._key = read_key(options.key_env, "upstream_key_env") if options.key_env else ""
        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = httpx2.AsyncClient(headers=headers, timeout=options.timeout_s)
        self.facts = Facts(
            name="upstream",
            voices=(DEFAULT_VOICE, *options.voices) if options.voices else (),
            languages=options.languages,
            speeds=(0.25, 4.0),
            clones=True,
            takes_instructions=True,
        )

    async def speak(self, utterance: Utterance) -> Sound:
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            self._pieces += 1
            content = await self._ask(self.body(utterance))
        except httpx2.HTTPError as error:
            words = without_key(f"{type(error).__name__}: {error}", self._key)
            raise EngineFault(f"The speech server cannot be used: {words}") from error
        finally:
            self._turns.release()
        try:
            return await self._decoded(content)
        except Unreadable as error:
            raise EngineFault(f"The speech server's answer cannot be used: it {error}.") from error

    def body(self, utterance: Utterance) -> dict[str, Any]:
        """The request for one piece."""
        names = self._options
        body: dict[str, Any] = {
            **names.extra,
            "model": names.model,
            "input": utterance.text,
            "response_format": names.form,
        }
        voice = names.default_voice if utterance.voice == DEFAULT_VOICE else utterance.voice
        if voice:
            body["voice"] = voice
        if utterance.speed != 1.0:
            body["speed"] = utterance.speed
        if utterance.language:
            body[names.language_field] = utterance.language
        if utterance.instructions:
            body["instructions"] = utterance.instructions
        if utterance.reference is not None:
            wav = base64.b64encode(utterance.reference.wav).decode()
            body[names.reference_audio_field] = f"data:audio/wav;base64,{wav}"
            if utterance.reference.text:
                body[names.reference_text_field] = utterance.reference.text
        return body

    def counts(self) -> Mapping[str, int]:
        return {"pieces": self._pieces, "waiting": self._waiting}

    def close(self) -> None:
        """Its connections end with the process."""
        self._decoders.stop()

    async def _decoded(self, content: bytes) -> Sound:
        with tempfile.NamedTemporaryFile(prefix="inferq-answer-", buffering=0) as file:
            await asyncio.to_thread(file.write, content)
            return Sound(await self._decoders.samples(Path(file.name)), RATE)

    async def _ask(self, body: dict[str, Any]) -> bytes:
        """The bytes of the answer. Cancelling closes the connection, which tells the server to stop."""
        async with self._client.stream("POST", self._options.url, json=body) as response:
            parts, size = [], 0
            async for part in response.aiter_bytes():
                parts.append(part)
                size += len(part)
                if size > MOST_BYTES:
                    raise EngineFault(f"The speech server answered with more than {MOST_BYTES} bytes.")
            content = b"".join(parts)
        if response.status_code != 200:
            raise refusal(response.status_code, content, self._key)
        return content


def refusal(status: int, content: bytes, key: str) -> BadRequest | EngineFault:
    # First hidden, then cut: a part of the key would no longer be found.
    words = without_key(content[:MOST_ERROR].decode("utf-8", "replace"), key)[:500]
    if 400 <= status < 500 and status not in OURS:
        return BadRequest(f"The speech server refused the request: {words}")
    return EngineFault(f"The speech server answered {status}: {words}")
