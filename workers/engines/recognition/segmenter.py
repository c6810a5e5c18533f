"""From "speech or not" for each frame to segments, by the rules of FunASR's fsmn-vad.

FunASR walks its state machine through dictionaries and slices of the sound, frame by frame; for a short sound that
takes longer than its network. These are the same rules on plain numbers: `FsmnVADStreaming.DetectOneFrame` and
`WindowDetector` of FunASR 1.4, for several utterances in a sound. Must not know samples or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """All in frames. Of the last `window` frames `to_speech` must be speech for a change to speech, and no more than
    `to_silence` for one to silence. A segment begins up to `back` frames before the window, and keeps `ahead` frames of
    the silence that ends it; it is ended at the latest when it is longer than `longest`.
    """

    window: int
    to_speech: int
    to_silence: int
    back: int
    ahead: int
    longest: float
    extend: bool


class Segmenter:
    """One sound's. `end_silence` is how many frames of silence end a segment; it may change between two calls."""

    def __init__(self, rules: Rules, end_silence: float) -> None:
        self.rules, self.end_silence = rules, end_silence
        self._frame = -1
        self._free = 0  # the first frame that may belong to the next segment
        self._start = self._end = 0
        self._reset()

    def _reset(self) -> None:
        self.speaking = False
        self._loud, self._silence = False, 0
        self._heard, self._sum = [False] * self.rules.window, 0
        self._place = 0

    def feed(self, speech: Sequence[bool], last: bool) -> list[tuple[int, int]]:
        """The segments that end within these frames, as first frame and the frame after; `last` ends the open one."""
        ended = []
        final = self._frame + len(speech) if last else -1
        for each in speech:
            self._frame += 1
            if self._step(each, self._frame == final):
                ended.append((self._start, self._end))
                self._reset()
        if last and self.speaking:  # begun with the very last frame
            ended.append((self._start, self._end))
        return ended

    def _step(self, speech: bool, final: bool) -> bool:
        """Take one frame; whether it ends the segment."""
        rules, frame = self.rules, self._frame
        was = self._loud
        self._hear(speech)
        silent = not was and not self._loud
        self._silence = self._silence + 1 if silent else 0
        if not self.speaking:
            earliest = frame - rules.window - rules.back
            self._free = max(self._free, earliest)
            if self._loud:
                self.speaking, self._start = True, self._free
                self._take(frame)
            return False
        if silent and self._silence >= self.end_silence:
            kept = rules.ahead + 1 if rules.extend else 0
            self._take(frame - max(0, int(self.end_silence) - kept))
            return True
        if final or frame - self._start + 1 > rules.longest:
            self._take(frame)
            return True
        if not silent or (rules.extend and self._silence <= rules.ahead):
            self._take(frame)
        return False

    def _hear(self, speech: bool) -> None:
        """The window moves on, and the state with it."""
        rules = self.rules
        self._sum += speech - self._heard[self._place]
        self._heard[self._place] = speech
        self._place = (self._place + 1) % rules.window
        if not self._loud:
            self._loud = self._sum >= rules.to_speech
        else:
            self._loud = self._sum > rules.to_silence

    def _take(self, frame: int) -> None:
        """The segment reaches up to this frame."""
        self._end, self._free = frame + 1, max(self._free, frame) + 1
