"""Reading the recording of a voice that is to be cloned.

Whatever the file is, it leaves here as a short mono wav file: so it was audio, it is small, and every voice can read
it.
"""

from __future__ import annotations

import asyncio

from workers.engines.failures import BadRequest
from workers.engines.media import local_path
from workers.engines.sounds.decoder import Unreadable
from workers.engines.sounds.decoders import Decoders
from workers.engines.voices.backend import Reference
from workers.engines.voices.encode import whole_wav
from workers.engines.voices.request import Recording
from workers.engines.voices.sound import Sound

SHORTEST_S = 0.5


async def read_reference(recording: Recording, folder: str | None, decoders: Decoders) -> Reference:
    """The recording that a field names. Raises BadRequest unless it is audio of a fitting length."""
    param = recording.param
    path = local_path(recording.value, param, folder)
    try:
        sound = Sound(await decoders.samples(path), decoders.rate)
    except Unreadable as error:
        raise BadRequest(f"'{param}' cannot be used: it {error}.", param=param) from error
    if sound.seconds < SHORTEST_S:
        raise BadRequest(
            f"'{param}' has {sound.seconds:.2f} s of sound; {SHORTEST_S} s are needed.", param=param
        )
    wav = await asyncio.to_thread(whole_wav, sound.samples, sound.rate)
    return Reference(wav, sound.seconds, recording.text)
