"""Decoded audio turned into something else: peaks for a picture, or a copy that plays anywhere.

All of it streams: a frame is decoded, used and forgotten, so twelve hours need no more memory than
a minute. pydub sees only PCM that is already decoded; its own ways of opening and exporting files
(temporary files, whole calls in memory, programs from PATH) are never used.
"""

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from typing import Literal

import av
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer

from archive.redaction import Cut
from storage.audio.decode import Track
from storage.audio.formats import Format
from storage.audio.wave import pcm_header

with warnings.catch_warnings():
    # pydub warns that audioop will leave the standard library, and that it finds no ffmpeg.
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", RuntimeWarning)
    warnings.simplefilter("ignore", SyntaxWarning)
    from pydub import AudioSegment

Encoded = Literal["mp3", "ogg"]
Write = Callable[[bytes], object]

PEAK = 127  # what full scale becomes
_FULL_SCALE = 32768
_BLOCKS_PER_SECOND = 200
_BATCH = 1 << 16  # bytes of PCM that pydub, or the reader of a WAV, gets at once
_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)


def _pcm(track: Track, rate: int, channels: int, layout: str) -> Iterator[AudioFrame]:
    """Interleaved 16-bit frames of one shape, whatever shapes the source goes through."""
    resampler, shape = None, None
    for frame in track.frames():
        now = (frame.sample_rate, frame.layout.nb_channels, frame.format.name)
        if now == (rate, channels, "s16"):
            yield frame
            continue
        if resampler is None or now != shape:
            if resampler is not None:
                yield from resampler.resample(None)
            resampler, shape = AudioResampler(format="s16", layout=layout, rate=rate), now
        frame.pts = None  # a source's timestamps may jump; its samples follow each other
        yield from resampler.resample(frame)
    if resampler is not None:
        yield from resampler.resample(None)


def _bytes(frame: AudioFrame) -> memoryview:
    return memoryview(frame.planes[0])[: frame.samples * frame.layout.nb_channels * 2]


class Peaks:
    """The highest absolute sample of each block, per channel.

    When there are many, each two become one: at first by blocks of twice the length, and once a
    block is as long as what arrives at once, by `_each` blocks for a peak.
    """

    def __init__(self, points: int, rate: int, channels: int) -> None:
        self._most = 4 * points
        self._rate, self._channels = rate, channels
        self._width = 2 * channels
        self._block = max(1, rate // _BLOCKS_PER_SECOND)  # samples
        self._blocks, self._each = 0, 1
        self._peaks: list[list[int]] = [[] for _ in range(channels)]
        self._rest = b""

    def add(self, pcm: bytes, *, final: bool = False) -> None:
        """Take interleaved 16-bit samples; what fills no block waits for the next ones."""
        pcm = self._rest + pcm
        whole = len(pcm) - (0 if final else len(pcm) % (self._block * self._width))
        self._rest = pcm[whole:]
        if not whole:
            return
        segment = AudioSegment(
            data=pcm[:whole], sample_width=2, frame_rate=self._rate, channels=self._channels
        )
        starts = range(0, whole // self._width, self._block)
        for peaks, mono in zip(self._peaks, segment.split_to_mono(), strict=True):
            for number, start in enumerate(starts, self._blocks):
                peak = mono.get_sample_slice(start, start + self._block).max
                if number % self._each:
                    peaks[-1] = max(peaks[-1], peak)
                else:
                    peaks.append(peak)
        self._blocks += len(starts)
        while len(self._peaks[0]) > self._most:
            self._double()

    def _double(self) -> None:
        self._peaks = [
            [max(peaks[at : at + 2]) for at in range(0, len(peaks), 2)] for peaks in self._peaks
        ]
        if self._block * self._width < _BATCH:
            self._block *= 2
            # A last odd block stands for a whole one: it is as long as a fraction of a point.
            self._blocks = len(self._peaks[0])
        else:
            self._each *= 2

    def points(self, count: int) -> list[list[int]]:
        """`count` peaks per channel, 0 to PEAK."""
        return [_spread(peaks, count) for peaks in self._peaks]


def _spread(peaks: list[int], count: int) -> list[int]:
    scaled = [min(PEAK, peak * (PEAK + 1) // _FULL_SCALE) for peak in peaks] or [0]
    size = len(scaled)
    edges = [at * size // count for at in range(count + 1)]
    return [max(scaled[start : max(stop, start + 1)]) for start, stop in pairwise(edges)]


def waveform(track: Track, points: int) -> list[list[int]]:
    """The peaks of each channel, `points` of them, each 0 to 127 (full scale)."""
    rate, layout = track.stream.rate, track.stream.layout
    peaks = Peaks(points, rate, layout.nb_channels)
    batch = io.BytesIO()
    for frame in _pcm(track, rate, layout.nb_channels, layout.name):
        batch.write(_bytes(frame))
        if batch.tell() >= _BATCH:
            peaks.add(batch.getvalue())
            batch = io.BytesIO()
    peaks.add(batch.getvalue(), final=True)
    return peaks.points(points)


def transcode(
    track: Track,
    to: Format,
    write: Write,
    samples: int | None = None,
    cuts: Sequence[Cut] = (),
) -> None:
    """Send a copy in another format to `write`, piece by piece.

    A WAV keeps rate and channels, and its header says the exact length where the source's samples
    can be computed (PCM, G.711, GSM, G.729), or were counted before (`samples`, which it then has);
    elsewhere it says 0xFFFFFFFF. It is silent where a cut is. MP3 and Ogg Opus have one channel or
    two.
    """
    if to == "wav":
        _to_wav(track, write, track.samples if samples is None else samples, cuts)
    else:
        _encode(track, to, write)


class _EnoughError(Exception):
    """What was asked for is written."""


def wav_part(
    track: Track, samples: int, start: int, stop: int, write: Write, cuts: Sequence[Cut] = ()
) -> None:
    """Send the bytes `start` to `stop` (exclusive) of the WAV of so many samples.

    What lies before is decoded and let go: no decoder begins in the middle and gives the same.
    """
    at = 0

    def within(piece: bytes) -> None:
        nonlocal at
        wanted = piece[max(start - at, 0) : max(stop - at, 0)]
        at += len(piece)
        if wanted:
            write(wanted)
        if at >= stop:
            raise _EnoughError

    with suppress(_EnoughError):
        _to_wav(track, within, samples, cuts)


def _to_wav(track: Track, write: Write, samples: int | None, cuts: Sequence[Cut]) -> None:
    rate, layout = track.stream.rate, track.stream.layout
    block = 2 * layout.nb_channels
    left = None if samples is None else samples * block
    at, batch = 0, io.BytesIO()
    batch.write(pcm_header(rate, layout.nb_channels, samples))
    for frame in _pcm(track, rate, layout.nb_channels, layout.name):
        piece = _bytes(frame)
        if left is not None:
            piece = piece[:left]
            left -= len(piece)
        batch.write(silenced(piece, at, rate, layout.nb_channels, cuts))
        at += len(piece) // block
        if batch.tell() >= _BATCH:
            write(batch.getvalue())
            batch = io.BytesIO()
    write(batch.getvalue())
    while left:  # damaged frames gave nothing; the header's promise is kept with silence
        write(bytes(min(left, _BATCH)))
        left -= min(left, _BATCH)


def silenced(
    pcm: memoryview, first: int, rate: int, channels: int, cuts: Sequence[Cut]
) -> bytes | memoryview:
    """Interleaved samples, of which the first is number `first`, silent where a cut is."""
    count = len(pcm) // (2 * channels)
    here = [cut for cut in cuts if cut[0] < first + count and cut[1] > first]
    if not here:
        return pcm
    whole = AudioSegment(data=bytes(pcm), sample_width=2, frame_rate=rate, channels=channels)
    lanes = whole.split_to_mono()
    for start, stop, channel in here:
        begin, end = max(start - first, 0), min(stop - first, count)
        silence = AudioSegment(
            data=bytes(2 * (end - begin)), sample_width=2, frame_rate=rate, channels=1
        )
        for number in range(channels) if channel is None else (channel,):
            lane = lanes[number]
            before, after = lane.get_sample_slice(0, begin), lane.get_sample_slice(end, count)
            lanes[number] = before + silence + after
    return bytes(AudioSegment.from_mono_audiosegments(*lanes).raw_data)


class _Sink(io.RawIOBase):
    """Where an encoder writes: not seekable, so that no format tries to mend its beginning."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def write(self, piece: bytes, /) -> int:  # type: ignore[override]
        self._write(bytes(piece))
        return len(piece)


def _encode(track: Track, to: Encoded, write: Write) -> None:
    layout = "mono" if track.stream.layout.nb_channels == 1 else "stereo"
    channels = 1 if layout == "mono" else 2
    rates = _MP3_RATES if to == "mp3" else _OPUS_RATES
    rate = next((one for one in rates if one >= track.stream.rate), rates[-1])
    options = {"write_xing": "0"} if to == "mp3" else {"page_duration": "200000"}
    with av.open(_Sink(write), "w", format=to, buffer_size=1 << 14, options=options) as output:
        stream = _encoder(output, to, rate, layout)
        encoder = AudioResampler(
            format=stream.codec_context.format,
            layout=layout,
            rate=rate,
            frame_size=stream.codec_context.frame_size or 1152,
        )
        at = 0
        for frame in _pcm(track, rate, channels, layout):
            frame.pts, frame.time_base = at, Fraction(1, rate)
            at += frame.samples
            for ready in encoder.resample(frame):
                output.mux(stream.encode(ready))
        for ready in encoder.resample(None):
            output.mux(stream.encode(ready))
        output.mux(stream.encode(None))


def _encoder(output: OutputContainer, to: Encoded, rate: int, layout: str) -> AudioStream:
    channels, wide = 1 if layout == "mono" else 2, rate > 16000
    if to == "mp3":
        stream = output.add_stream(
            "libmp3lame", rate=rate, layout=layout, options={"compression_level": "7"}
        )
        stream.bit_rate = (48000 if wide else 32000) * channels
    else:
        options = {"application": "voip", "compression_level": "5"}
        stream = output.add_stream("libopus", rate=rate, layout=layout, options=options)
        stream.bit_rate = (32000 if wide else 20000) * channels
    return stream
