"""The child process that decodes one sound file after the other, with limits.

Files come from strangers and the decoders are C, so they run apart: with bounds on memory, processor time and
output, only known containers, and no protocol but a plain file. One line of JSON in: `path`, `out`, `rate`,
`max_seconds`, `max_channels`. One line out: `samples` (written to `out` as 16-bit little-endian mono at `rate`), or
`error`.
Must not import a model library.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from typing import Any, BinaryIO

import av  # type: ignore[import-not-found,unused-ignore]

MEMORY_BYTES = 1536 * 1024 * 1024
RATES = (1_000, 384_000)
MOST_DAMAGED = 20
OPTIONS = {
    # Playlists and the like name other files; they are not sound.
    "format_whitelist": "wav,w64,aiff,au,caf,mp3,aac,flac,ogg,matroska,webm,mov,mp4,m4a,3gp,amr,asf",
    "protocol_whitelist": "file",
}
# Who writes to a pipe states all ones, or the largest signed number, or a header less than these.
WAV_SIGNLESS, WAV_UNKNOWN = 0x7FFFFFFF, 0x7FFFFFFF - 4096
WAV_SLACK = 4096  # bytes that may be missing
# Containers that state their duration, so that a missing end shows.
STATING = ("wav", "flac", "mov", "matroska", "w64", "aiff")


class Unreadable(Exception):
    """The file is not sound that can be decoded; the message is for the caller."""


def decode(path: str, out: BinaryIO, rate: int, max_seconds: float, max_channels: int) -> int:
    """Write the sound to `out`; the number of samples. Raises Unreadable."""
    try:
        container = av.open(path, options=OPTIONS)
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise Unreadable("is not a sound file that can be read") from error
    if wav_shortfall(path) > WAV_SLACK:
        raise Unreadable("ends before the end that its header states")
    with container:
        if not container.streams.audio:
            raise Unreadable("holds no sound")
        stream = container.streams.audio[0]
        claimed = claimed_seconds(container, stream)
        check(stream, claimed, max_seconds, max_channels)
        stream.codec_context.thread_count = 1
        samples = write(container, stream, out, rate, max_seconds)
        if stated_end(container, claimed) > samples / rate:
            raise Unreadable(f"ends early: it says {claimed:.1f} seconds and holds {samples / rate:.1f}")
        return samples


def wav_shortfall(path: str) -> int:
    """How many bytes a wav file says it holds beyond its end. A file written to a pipe cannot know."""
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return 0
        while len(chunk := file.read(8)) == 8:
            stated = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data":
                return 0 if stated & WAV_SIGNLESS >= WAV_UNKNOWN else max(0, file.tell() + stated - size)
            file.seek(stated + stated % 2, os.SEEK_CUR)
    return 0


def claimed_seconds(container: Any, stream: Any) -> float:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1e6


def stated_end(container: Any, claimed: float) -> float:
    """How much sound there must be at least, in seconds, if the header is true."""
    states = any(name in STATING for name in container.format.name.split(","))
    return claimed * 0.95 - 0.5 if states else 0.0


def check(stream: Any, claimed: float, max_seconds: float, max_channels: int) -> None:
    rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
    if not RATES[0] <= rate <= RATES[1]:
        raise Unreadable(f"has a sample rate of {rate}; {RATES[0]} to {RATES[1]} can be read")
    if not 1 <= channels <= max_channels:
        raise Unreadable(f"has {channels} channels; up to {max_channels} can be read")
    if claimed > max_seconds:
        raise Unreadable(f"says that it lasts {claimed:.0f} seconds; the limit is {max_seconds:.0f}")


def write(container: Any, stream: Any, out: BinaryIO, rate: int, max_seconds: float) -> int:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
    written = damaged = 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.InvalidDataError as error:
            damaged += 1
            if damaged > MOST_DAMAGED or not written:
                raise Unreadable("is damaged") from error
            continue
        for frame in frames:
            written += put(resampler.resample(frame), out)
            if written > max_seconds * rate:
                raise Unreadable(f"lasts longer than the limit of {max_seconds:.0f} seconds")
    return written + (put(resampler.resample(None), out) if written else 0)


def put(frames: list[Any], out: BinaryIO) -> int:
    count = 0
    for frame in frames:
        out.write(frame.to_ndarray().tobytes())
        count += frame.samples
    return count


def answer(order: dict[str, Any]) -> dict[str, Any]:
    """Decode as ordered; every failure of the file or a limit becomes an `error`."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(order["max_seconds"] * order["rate"] * 2) + (1 << 20), -1))
    allow_processor_time(60 + order["max_seconds"] / 50)
    try:
        with open(order["out"], "wb") as out:
            wanted = (order[name] for name in ("rate", "max_seconds", "max_channels"))
            return {"samples": decode(order["path"], out, *wanted)}
    except Unreadable as error:
        return {"error": str(error)}
    except (av.FFmpegError, ValueError, MemoryError, OSError) as error:
        return {"error": f"cannot be decoded ({type(error).__name__})"}


def allow_processor_time(seconds: float) -> None:
    """So many seconds from now; past them the system ends this process."""
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + 1, hard))


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not look like an answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    av.logging.set_level(av.logging.PANIC)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
