"""Subtitles: SubRip and WebVTT cues, one a segment."""

from __future__ import annotations

from collections.abc import Sequence

from workers.engines.recognition.transcript import Segment


def srt(segments: Sequence[Segment]) -> str:
    cues = [
        f"{place}\n{clock(segment.start, ',')} --> {clock(segment.end, ',')}\n{line(segment)}\n"
        for place, segment in enumerate(segments, 1)
    ]
    return "\n".join(cues)


def vtt(segments: Sequence[Segment]) -> str:
    cues = [
        f"{clock(segment.start, '.')} --> {clock(segment.end, '.')}\n{escaped(line(segment))}\n"
        for segment in segments
    ]
    return "\n".join(["WEBVTT\n", *cues])


def line(segment: Segment) -> str:
    """A cue ends at an empty line, so its text is one line; a speaker comes before the text."""
    text = " ".join(segment.text.split())
    return f"{segment.speaker}: {text}" if segment.speaker else text


def escaped(text: str) -> str:
    """WebVTT reads markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def clock(seconds: float, point: str) -> str:
    whole = round(seconds * 1000)
    hours, rest = divmod(whole, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{point}{rest % 1000:03}"
