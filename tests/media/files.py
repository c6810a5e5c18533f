"""Real files of every kind, and broken ones, made in memory."""

import io
import math
import struct
import wave
import zlib
from fractions import Fraction
from typing import Any

import av
from PIL import Image

RATE = 16_000


def picture(form: str, size: tuple[int, int] = (40, 30), frames: int = 1, **options: Any) -> bytes:
    images = [Image.new("RGB", size, (number * 90 % 256, 40, 40)) for number in range(frames)]
    if frames > 1:
        options |= {"save_all": True, "append_images": images[1:]}
    stream = io.BytesIO()
    images[0].save(stream, form, **options)
    return stream.getvalue()


def gif(frames: int) -> bytes:
    """A moving picture of 1x1 pixels."""
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\x00\x00\x00\xff\xff\xff"
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x4c\x01\x00"
    return head + frame * frames + b";"


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has hardly any data."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\x00" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")


def webp_header(width: int, height: int) -> bytes:
    """A WebP that claims a canvas and has nothing on it."""
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    chunk = b"VP8X" + struct.pack("<I", 10) + b"\x00\x00\x00\x00" + size
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def tone(seconds: float, rate: int = RATE) -> bytes:
    """16-bit samples of 440 Hz."""
    return b"".join(
        struct.pack("<h", int(8000 * math.sin(2764.6 * n / rate))) for n in range(int(seconds * rate))
    )


def wav(seconds: float = 1.0, rate: int = RATE, channels: int = 1) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(tone(seconds, rate) * channels)
    return stream.getvalue()


def wav_claiming(size: int, seconds: float = 1.0) -> bytes:
    """A WAV whose header claims `size` bytes of samples."""
    made = bytearray(wav(seconds))
    made[4:8] = struct.pack("<I", min(size + 36, 0xFFFFFFFF))
    made[40:44] = struct.pack("<I", size)
    return bytes(made)


def sound(form: str, codec: str, seconds: float = 1.0, rate: int = RATE, **options: Any) -> bytes:
    stream = io.BytesIO()
    with av.open(stream, "w", format=form, **options) as container:
        made = container.add_stream(codec, rate=rate)
        made.layout = "mono"
        samples, step = tone(seconds, rate), 2 * 1024
        resampler = av.AudioResampler(made.format, "mono", rate, frame_size=made.frame_size or None)
        for at in range(0, len(samples), step):
            piece = samples[at : at + step]
            frame = av.AudioFrame("s16", "mono", len(piece) // 2)
            frame.planes[0].update(piece)
            frame.sample_rate, frame.pts, frame.time_base = rate, at // 2, Fraction(1, rate)
            for ready in resampler.resample(frame):
                container.mux(made.encode(ready))
        container.mux(made.encode(None))
    return stream.getvalue()


def video(form: str, codec: str, frames: int = 10, size: tuple[int, int] = (64, 48), **options: Any) -> bytes:
    stream = io.BytesIO()
    with av.open(stream, "w", format=form, **options) as container:
        made = container.add_stream(codec, rate=10)
        made.width, made.height = size
        made.pix_fmt = "yuv420p"
        for number in range(frames):
            container.mux(made.encode(av.VideoFrame.from_image(Image.new("RGB", size, (number, 0, 0)))))
        container.mux(made.encode(None))
    return stream.getvalue()
