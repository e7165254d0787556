"""Who talked when, as far as the loudness of each channel tells: shares of the time, and silences.

It is measured on the peaks that the waveform is drawn from, so it is as fine as they are. A part is
talk when it is louder than a tenth of the loudest of its channel; a breath between two words is
still talk. Music and noise count as talk: this is a help to the ear and no evidence.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

BREATH = 0.8
"""Seconds of quiet within one's talk that still are talk."""

SILENCE = 1.5
"""Seconds without talk from which on it is a silence that can be skipped."""

_LOUD = 0.1
_NOISE = 3  # of 127: what a line makes by itself


@dataclass(frozen=True, slots=True)
class Talk:
    """`shares`: of the time, for each channel. `silences`: spans in seconds without any talk."""

    shares: tuple[float, ...]
    silence: float
    silences: tuple[tuple[float, float], ...]


def measure(channels: Sequence[Sequence[int]], duration: float) -> Talk:
    """Measure the peaks of each channel (0 to 127, as many in each) over so many seconds."""
    parts = len(channels[0])
    width = duration / parts
    talking = [_talking(peaks, width) for peaks in channels]
    shares = tuple(sum(each) / parts for each in talking)
    quiet = [not any(each) for each in zip(*talking, strict=True)]
    spans = [
        (start * width, stop * width)
        for value, start, stop in _runs(quiet)
        if value and (stop - start) * width >= SILENCE
    ]
    return Talk(shares, sum(quiet) / parts, tuple(spans))


def _talking(peaks: Sequence[int], width: float) -> list[bool]:
    least = max(_NOISE, max(peaks) * _LOUD)
    loud = [peak > least for peak in peaks]
    for value, start, stop in list(_runs(loud)):
        if not value and start and stop < len(loud) and (stop - start) * width <= BREATH:
            loud[start:stop] = [True] * (stop - start)
    return loud


def _runs(values: Sequence[bool]) -> Iterator[tuple[bool, int, int]]:
    at = 0
    for value, run in groupby(values):
        length = sum(1 for _ in run)
        yield value, at, at + length
        at += length
