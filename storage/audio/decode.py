"""Audio read out of one forced demuxer, and measured by what comes out.

The whole of a compressed file is decoded (one core: Opus 500, AMR 1,200, AAC 2,000, FLAC and MP3
over 3,000 times real time), so a duration is a count of samples and every damaged frame is found.
PCM and G.711 cannot be damaged, only cut: their samples are counted by division, and one packet is
decoded to see that it can be. Reading stops as soon as the limit of the duration is passed, and
holds one packet and its frames at a time.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from io import RawIOBase
from typing import BinaryIO

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from archive.errors import NotAudioError, TooLargeError
from storage.audio import formats, tags
from storage.audio.facts import (
    DAMAGED_FRAMES,
    FORMAT_CHANGES,
    HEADER_LENGTH_WRONG,
    LENGTH_UNKNOWN,
    OTHER_STREAMS,
    TRUNCATED,
    AudioFacts,
)
from storage.audio.formats import RawType
from storage.audio.ogg import ends_well
from storage.audio.tags import Tags
from storage.audio.wave import Wave, read_wave

_BUFFER = 1 << 16
_PCM = frozenset(f"pcm_{kind}" for kind in ("u8", "s16le", "s16be", "s24le", "s32le", "f32le"))
_TELEPHONE = frozenset(("pcm_alaw", "pcm_mulaw", "gsm", "gsm_ms", "g729", "amr_nb", "amr_wb"))
_ADPCM = frozenset(("adpcm_ms", "adpcm_ima_wav", "adpcm_g726", "adpcm_g722"))
_MUSIC = frozenset(("mp3", "opus", "vorbis", "flac", "aac", "alac", "pcm_f64le"))
_CODECS = _PCM | _TELEPHONE | _ADPCM | _MUSIC
_HEADER_TELLS = frozenset(("flac", "m4a", "webm"))  # formats whose header says the duration
_TOLERANCE = 0.25  # s between what a header says and what there is: priming, padding, rounding
_TOLERANCE_FLAC = 0.001  # its header counts samples


class Window(RawIOBase):
    """`header` and then `length` bytes of `base` from `start` on, as one file to be read."""

    def __init__(self, base: BinaryIO, start: int, length: int, header: bytes = b"") -> None:
        self._base, self._start, self._header = base, start, header
        self._size = len(header) + length
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        origin = (0, self._position, self._size)[whence]
        self._position = max(0, origin + offset)
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        left = max(0, self._size - self._position)
        size = left if size < 0 else min(size, left)
        inside = self._position - len(self._header)
        if inside < 0:
            piece = self._header[self._position : self._position + size]
        else:
            self._base.seek(self._start + inside)
            piece = self._base.read(size)
        self._position += len(piece)
        return piece


@dataclass(slots=True)
class Track:
    """An opened audio stream. `samples` per channel where they can be computed beforehand."""

    container: str
    input: InputContainer
    stream: AudioStream
    samples: int | None = None
    plain: bool = False
    flaws: list[str] = field(default_factory=list)
    tags: Tags = ()

    def flaw(self, name: str) -> None:
        if name not in self.flaws:
            self.flaws.append(name)

    def frames(self) -> Iterator[AudioFrame]:
        """Decode to the end, past damaged frames, which are noted as flaws."""
        bad = False
        try:
            for packet in self.input.demux(self.stream):
                if bad and packet.size:
                    self.flaw(DAMAGED_FRAMES)
                    bad = False
                try:
                    yield from packet.decode()
                except av.error.FFmpegError as error:
                    bad = _bearable(error)
                bad = bad or packet.is_corrupt or self._is_cut(packet)
        except av.error.FFmpegError as error:
            bad = _bearable(error)
        if bad:  # whatever is wrong with the last one is a missing end
            self.flaw(TRUNCATED)

    def _is_cut(self, packet: "av.Packet[AudioStream]") -> bool:
        # The MPEG decoder makes do with part of a frame, so its length is compared here.
        return (
            self.container == "mp3"
            and packet.size > 4
            and formats.mp3_frame_length(bytes(memoryview(packet)[:4])) > packet.size
        )


def _bearable(error: av.error.FFmpegError) -> bool:
    """Decoders have many words for damage; only a lack of memory is another matter."""
    if isinstance(error, MemoryError):
        raise error
    return True


@contextmanager
def open_track(
    reader: BinaryIO, size: int, media: str | None, allowed: frozenset[str]
) -> Iterator[Track]:
    """Tell the format of `size` bytes and open it; NotAudioError if it is not one of `allowed`."""
    reader.seek(0)
    kind = formats.recognise(reader.read(formats.HEAD), size, media)
    if isinstance(kind, RawType):
        formats.allow(formats.RAW, allowed)
        opened = _open_raw(reader, size, kind)
    elif kind == "wav":
        wave = read_wave(reader, size)
        formats.allow("g729" if wave.tag == 0x83 else "wav", allowed)
        opened = _open_wave(reader, wave)
        opened.tags = tags.of_wave(reader, size)
    else:
        formats.allow(kind, allowed)
        opened = _open(Window(reader, 0, size), formats.DEMUXERS[kind], kind)
        if kind == "ogg" and not ends_well(reader, size):
            opened.flaw(TRUNCATED)
        opened.tags = tags.of_container(opened.input, opened.stream)
    try:
        yield opened
    finally:
        opened.input.close()


def _open_raw(reader: BinaryIO, size: int, raw: RawType) -> Track:
    samples = raw.measure(size)
    options = _shape(raw.rate, raw.channels) if raw.samples == 1 else {}
    size -= size % raw.frame  # FFmpeg knows no comfort noise
    track = _open(Window(reader, 0, size), raw.demuxer, raw.media, options)
    track.samples, track.plain = samples, raw.samples == 1
    return track


def _open_wave(reader: BinaryIO, wave: Wave) -> Track:
    window = Window(reader, wave.start, wave.length, wave.header)
    if wave.plain:
        track = _open(window, wave.plain, "wav", _shape(wave.rate, wave.channels))
    else:
        track = _open(window, "wav", "wav")
    track.samples, track.plain = wave.samples, wave.plain is not None
    track.flaws.extend(wave.flaws)
    return track


def _shape(rate: int, channels: int) -> dict[str, str]:
    # FFmpeg would decode a quarter of a megabyte in search of other things inside PCM.
    return {
        "sample_rate": str(rate),
        "ch_layout": f"{channels}c",
        "probesize": "4096",
        "analyzeduration": "0",
    }


def _refuse(url: str, flags: int, options: object) -> None:
    raise PermissionError("no file may be opened from within another")


def _open(
    window: Window, demuxer: str, container: str, options: Mapping[str, str] | None = None
) -> Track:
    try:
        opened = av.open(
            window,
            "r",
            format=demuxer,
            buffer_size=_BUFFER,
            options={"enable_drefs": "0", "protocol_whitelist": "none", **(options or {})},
            io_open=_refuse,
            metadata_errors="replace",
        )
    except av.error.FFmpegError as error:
        raise NotAudioError(f"It begins like {container}, but cannot be read as such.") from error
    try:
        return _choose(opened, container)
    except BaseException:
        opened.close()
        raise


def _choose(opened: InputContainer, container: str) -> Track:
    if not opened.streams.audio:
        raise NotAudioError("There is no audio in this file.")
    stream = opened.streams.audio[0]
    codec = stream.codec_context.codec.canonical_name if stream.codec_context else "unknown"
    if codec not in _CODECS:
        raise NotAudioError(f"The codec `{codec}` is not taken.")
    stream.codec_context.thread_count = 1
    track = Track(container, opened, stream)
    others = [one for one in opened.streams if one is not stream and not _is_picture(one)]
    if others:
        track.flaw(OTHER_STREAMS)
    return track


def _is_picture(stream: av.stream.Stream) -> bool:
    return stream.type == "video" and bool(stream.disposition & av.stream.Disposition.attached_pic)


def measure(track: Track, max_duration: float) -> AudioFacts:
    """Count the audio, in seconds; NotAudioError if there is none, TooLargeError when over."""
    if track.plain and track.samples is not None:
        _within(Fraction(track.samples, track.stream.rate), max_duration)
    seconds, end, first = Fraction(0), 0.0, None
    for frame in track.frames():
        _check_shape(frame)
        if first is None:
            first = (frame.sample_rate, frame.layout.nb_channels)
        elif first != (frame.sample_rate, frame.layout.nb_channels):
            track.flaw(FORMAT_CHANGES)
        seconds += Fraction(frame.samples, frame.sample_rate)
        _within(seconds, max_duration)
        if frame.time is not None:
            end = frame.time + frame.samples / frame.sample_rate
        if track.plain and track.samples is not None:
            seconds = Fraction(track.samples, frame.sample_rate)
            break
    if first is None or not seconds:
        raise NotAudioError("No audio could be decoded from this file.")
    rate, channels = first
    _compare_with_header(track, float(seconds), end)
    codec = track.stream.codec_context.codec.canonical_name
    flaws = tuple(sorted(track.flaws))
    return AudioFacts(track.container, codec, channels, rate, float(seconds), flaws, track.tags)


def _within(seconds: Fraction, max_duration: float) -> None:
    if seconds > max_duration:
        raise TooLargeError(f"The audio is longer than {max_duration / 3600:g} hours.")


def _check_shape(frame: AudioFrame) -> None:
    if frame.sample_rate not in formats.RATES:
        raise NotAudioError("The sampling rate is out of bounds.")
    if not 1 <= frame.layout.nb_channels <= formats.MAX_CHANNELS:
        raise NotAudioError("The number of channels is out of bounds.")


def _compare_with_header(track: Track, seconds: float, end: float) -> None:
    """Mark a length other than the header's; `end` is where the last frame says that it ends."""
    if track.container not in _HEADER_TELLS:
        return
    if track.input.duration is None or track.input.duration <= 0:
        track.flaw(LENGTH_UNKNOWN)
        return
    said = track.input.duration / av.time_base
    tolerance = _TOLERANCE_FLAC if track.container == "flac" else _TOLERANCE
    if said > seconds + tolerance:
        track.flaw(TRUNCATED if end < said - tolerance else DAMAGED_FRAMES)
    elif said < seconds - tolerance:
        track.flaw(HEADER_LENGTH_WRONG)
