"""The prober's child: says what files are, by their headers, so that a hostile file can only kill this process.

Started by file path (``python -I inferq/media/probe.py``) and so limited to the standard library, Pillow and PyAV. It
writes ``ready``, then reads one path per line, as JSON, and answers each with one line of JSON: the fields of
`inferq.media.facts.Facts`. It ends with its standard input, and so with its owner. It decodes no pixel and no sound,
opens no second file, writes none, and holds its memory and its time per file within limits.
"""

import json
import math
import resource
import sys
import time
import warnings
from typing import Any, BinaryIO

import av
import av.error
from av.container import InputContainer
from av.stream import Disposition
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

MEMORY = 1 << 30
"""Bytes of address space."""
CPU_SECONDS = 10
"""For one file, should nobody be left to stop this process."""
MEASURE_SECONDS = 2.0
"""How long packets are read to find out a length that no header tells."""

MOST_FRAMES = 10_000
"""Of a GIF, whose header does not tell how many it has: they are found by reading it to the end."""

_PLUGINS = (PngImagePlugin, JpegImagePlugin, WebPImagePlugin, GifImagePlugin, BmpImagePlugin)
"""Imported here so that Pillow never looks for others."""
_PICTURES = {  # as `inferq.media.facts` has them, which this program cannot import
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
}
_CONTAINERS = {  # FFmpeg's demuxer: media type of sound, media type of video
    "wav": ("audio/wav", "video/wav"),
    "w64": ("audio/wav", "video/wav"),
    "aiff": ("audio/aiff", "video/aiff"),
    "au": ("audio/basic", "video/basic"),
    "caf": ("audio/x-caf", "video/x-caf"),
    "flac": ("audio/flac", "video/flac"),
    "mp3": ("audio/mpeg", "video/mpeg"),
    "aac": ("audio/aac", "video/aac"),
    "amr": ("audio/amr", "video/amr"),
    "ogg": ("audio/ogg", "video/ogg"),
    "matroska,webm": ("audio/webm", "video/webm"),
    "mov,mp4,m4a,3gp,3g2,mj2": ("audio/mp4", "video/mp4"),
    "avi": ("audio/x-msvideo", "video/x-msvideo"),
    "flv": ("audio/x-flv", "video/x-flv"),
    "asf": ("audio/x-ms-wma", "video/x-ms-wmv"),
    "mpeg": ("audio/mpeg", "video/mpeg"),
    "mpegts": ("audio/mp2t", "video/mp2t"),
}
_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_MAGIC = (
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b", "application/gzip"),
    *((magic, "image/tiff") for magic in _TIFF),
)
_BROKEN_PICTURE = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")
_OTHER_PICTURES = {b"avif": "image/avif", b"avis": "image/avif", b"heic": "image/heic", b"mif1": "image/heif"}
_OPTIONS = {"format_whitelist": ",".join(_CONTAINERS), "protocol_whitelist": "pipe"}


def main() -> None:
    restrain()
    print("ready", flush=True)  # noqa: T201 - the answer to the owner
    for line in sys.stdin:
        grant_time()
        print(json.dumps(examine(json.loads(line))), flush=True)  # noqa: T201


def restrain() -> None:
    """No files written, no core dumps, bounded memory; libraries keep quiet."""
    warnings.simplefilter("ignore")
    # Facts about a bomb are wanted; nothing here decodes it.
    Image.MAX_IMAGE_PIXELS = None
    for limit, value in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (value, value))


def grant_time() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + CPU_SECONDS, hard))


def examine(path: str) -> dict[str, Any]:
    """Facts about a file, or `error` in words that may be shown to its sender."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
            file.seek(0)
            return picture(file, head) or recording(file, head) or other(head)
    except MemoryError:
        return {"error": "it would take too much memory to look into"}
    # Libraries raise anything on hostile files, and their texts may tell what is in our memory.
    except Exception:  # noqa: BLE001
        return {"error": "it is damaged"}


def picture(file: BinaryIO, head: bytes) -> dict[str, Any] | None:
    """1. A format of the list; 2. one that begins like it and is broken, which raises; 3. None for all else."""
    try:
        image = Image.open(file, formats=tuple(_PICTURES))
    except UnidentifiedImageError:
        if head.startswith(_BROKEN_PICTURE) or head[8:12] == b"WEBP":
            raise
        return None
    with image:
        form, frames = image.format or "", frames_of(image)
        if frames > MOST_FRAMES and form == "GIF":
            return {"error": f"it has more than {MOST_FRAMES} frames"}
        return {
            "kind": "image",
            # Pillow calls a JPEG with more pictures behind it MPO.
            "media_type": _PICTURES["JPEG" if form == "MPO" else form],
            "width": image.width,
            "height": image.height,
            "frames": 1 if form == "MPO" else frames,
        }


def frames_of(image: Image.Image) -> int:
    """Frames as the header has them; those of a GIF are counted, up to one more than are taken."""
    if not isinstance(image, GifImagePlugin.GifImageFile):
        return getattr(image, "n_frames", 1)
    for count in range(1, MOST_FRAMES + 1):
        try:
            # As Pillow's `n_frames` does, which has no bound. Its public `seek` would decode.
            image._seek(count, update_image=False)  # noqa: SLF001
        except EOFError:
            return count
    return MOST_FRAMES + 1


def recording(file: BinaryIO, head: bytes) -> dict[str, Any] | None:
    """Sound or video in a container of the list, or None."""
    if head.startswith(_TIFF) or (head[4:8] == b"ftyp" and head[8:12] in _OTHER_PICTURES):
        return None
    file.seek(0)
    try:
        container = av.open(file, "r", options=_OPTIONS, io_open=_no_second_file, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError):
        return None
    with container:
        pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        sounds = [s for s in container.streams.audio if s.sample_rate and s.channels]
        facts: dict[str, Any] = {"kind": "audio", "seconds": length(container)}
        if sounds:
            facts["channels"] = sounds[0].channels
        if pictures and pictures[0].width:
            first = pictures[0]
            rate = first.average_rate or first.guessed_rate
            seconds = facts["seconds"]
            frames = first.frames or (round(seconds * rate) if seconds is not None and rate else None)
            facts |= {"kind": "video", "width": first.width, "height": first.height, "frames": frames}
        elif not sounds:
            return None
        return {**facts, "media_type": container_type(container.format.name, facts["kind"], head)}


def length(container: InputContainer) -> float | None:
    """Seconds of the longest stream as the headers have it, else as the packets do."""
    told = [float(s.duration * s.time_base) for s in container.streams if s.duration and s.time_base]
    if container.duration:
        told.append(container.duration / 1_000_000)
    return max(told) if told else measured(container)


def measured(container: InputContainer) -> float | None:
    """Where the last packet ends. When there is no time to read them all: that, scaled by the bytes left unread."""
    until, end, begin = time.monotonic() + MEASURE_SECONDS, 0.0, math.inf
    for packet in container.demux(audio=0) if container.streams.audio else container.demux(video=0):
        if packet.pts is None or packet.time_base is None:
            continue
        begin = min(begin, float(packet.pts * packet.time_base))
        end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if time.monotonic() > until:
            return (end - begin) * container.size / packet.pos if packet.pos else None
    return end - begin if begin < math.inf else None


def container_type(name: str, kind: str, head: bytes) -> str:
    sound, video = _CONTAINERS[name]
    if name == "matroska,webm" and b"webm" not in head[:64]:
        sound, video = "audio/x-matroska", "video/x-matroska"
    if head[4:12] == b"ftypqt  ":
        video = "video/quicktime"
    return video if kind == "video" else sound


def other(head: bytes) -> dict[str, Any]:
    """What is neither picture nor recording, as well as its first bytes tell."""
    found = next((name for magic, name in _MAGIC if head.startswith(magic)), None)
    if head[4:8] == b"ftyp":
        found = _OTHER_PICTURES.get(head[8:12])
    return {"kind": "other", "media_type": found or ("text/plain" if is_text(head) else None)}


def is_text(head: bytes) -> bool:
    """True for UTF-8 without control characters; its last character may be cut off."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3 or error.reason != "unexpected end of data":
            return False
        text = head[: error.start].decode("utf-8")
    return bool(text) and all(character >= " " or character in "\t\n\r\f" for character in text)


def _no_second_file(*_: object) -> Any:
    raise PermissionError


if __name__ == "__main__":
    main()
