"""What a video model can make, and the nearest of it to what was asked.

A model makes frames of certain sizes, in certain counts, at the rate it was trained on. The file has the
asked size, rate and length. Owns the arithmetic between the two; must not know requests nor pipelines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

# How far the size that is made may be from the size of the file, each way: more would change the picture's shape.
TOLERANCE = 0.02
BROADCAST = {
    rate: Fraction(whole * 1000, 1001)
    for whole, rates in {24: (23.97, 23.98), 30: (29.97,), 60: (59.94,)}.items()
    for rate in rates
}


@dataclass(frozen=True)
class Size:
    """Pixels."""

    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True)
class Canvas:
    """The sizes one model can make: multiples of `unit`, up to `most` pixels; only `native` where `fixed`."""

    unit: int
    native: Size
    most: int
    fixed: bool = False

    def nearest(self, wanted: Size) -> Size:
        """The size to make for a file of the wanted size."""
        if self.fixed:
            return self.native
        return Size(self._round(wanted.width), self._round(wanted.height))

    def neighbours(self, wanted: Size) -> list[Size]:
        """Sizes near the wanted one that can be made exactly, the nearest first."""
        if self.fixed:
            return [self.native]
        found = {
            Size(width, height)
            for width in self._around(wanted.width)
            for height in self._around(wanted.height)
            if width * height <= self.most
        }
        return sorted(found, key=lambda size: distance(size, wanted)) or [self.native]

    def of_height(self, height: int) -> Size:
        """The size of this height and of the model's own shape; the width is one the model can make."""
        width = height * self.native.width / self.native.height
        return self.native if height == self.native.height else Size(self._round(width), height)

    def _round(self, length: float) -> int:
        return max(1, math.floor(length / self.unit + 0.5)) * self.unit

    def _around(self, length: int) -> set[int]:
        low = max(1, length // self.unit)
        return {low * self.unit, (low + (length % self.unit > 0)) * self.unit}


def distance(made: Size, wanted: Size) -> float:
    """The larger of the two relative changes from one size to the other."""
    return max(abs(made.width / wanted.width - 1), abs(made.height / wanted.height - 1))


@dataclass(frozen=True)
class Rhythm:
    """The counts of frames one model can make: 1 + k * `step`, up to `most`, at `rate` frames per second."""

    rate: float
    step: int
    most: int

    @property
    def longest(self) -> int:
        """The largest count within `most`."""
        return (self.most - 1) // self.step * self.step + 1

    def needed(self, duration: float) -> int:
        """The smallest count that covers a time in seconds."""
        # A length like 0.7 s at 10 frames per second is a hair above 7 frames in floating point.
        covered = max(1, math.ceil(round(duration * self.rate, 6)))
        return math.ceil((covered - 1) / self.step) * self.step + 1


@dataclass(frozen=True)
class Timeline:
    """The frames of the file: `count` at `rate` per second."""

    count: int
    rate: Fraction

    @classmethod
    def of(cls, duration: float, rate: float) -> Timeline:
        # 29.97 stands for 30000/1001, and so do its relatives; any other rate is what it says.
        written = round(rate, 2)
        exact = BROADCAST.get(written, Fraction(written).limit_denominator(100))
        return cls(max(1, math.floor(round(duration * rate, 6) + 0.5)), exact)

    def sources(self, made: int, native: float) -> list[tuple[int, float]]:
        """For each frame of the file: the made frame before it in time, and how far it is to the next, 0 to 1.

        After the last made frame that one stays.
        """
        found = []
        for number in range(self.count):
            place = min(float(number / self.rate) * native, made - 1)
            # A frame that falls on a made one is that one, whatever floating point says.
            before = math.floor(round(place, 6))
            found.append((before, max(0.0, round(place - before, 6))))
        return found
