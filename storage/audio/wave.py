"""RIFF and its relatives, read without believing them.

Recorders write the lengths of a WAV last, if at all: they are 0 or 0xFFFFFFFF in what was streamed,
too long in what was cut, and too short in what another program appended to. So the chunks are
walked here, the audio is what is really there, and no demuxer ever sees the file's own header: PCM
and G.711 need none, and for other codecs a new one is made that tells the truth. RF64 and BW64 are
read the same way.
"""

import struct
from dataclasses import dataclass
from typing import BinaryIO

from archive.errors import NotAudioError
from storage.audio.facts import HEADER_LENGTH_WRONG, LENGTH_UNKNOWN, TRUNCATED
from storage.audio.formats import MAX_CHANNELS, RATES

_MAX_CHUNKS = 1000
_OPEN_ENDED = 0x7FFFF000  # from here on a length that is not there means "unknown" (SoX, FFmpeg)
_EXTENSIBLE = 0xFFFE
_PCM, _FLOAT, _ALAW, _MULAW, _GSM, _G729 = 1, 3, 6, 7, 0x31, 0x83
# Where every byte is a sample or a part of one: tag and bits, and FFmpeg's name of the raw format.
_PLAIN = {
    **{(_PCM, 8): "u8", (_PCM, 16): "s16le", (_PCM, 24): "s24le", (_PCM, 32): "s32le"},
    **{(_FLOAT, 32): "f32le", (_FLOAT, 64): "f64le", (_ALAW, 8): "alaw", (_MULAW, 8): "mulaw"},
}
_FRAMES = {_GSM: (65, 320), _G729: (10, 80)}  # bytes and samples of a frame


@dataclass(frozen=True, slots=True)
class Wave:
    """Where the audio of a WAV is. `start`, `length` in bytes; `samples` per channel if computable.

    `plain` names the raw demuxer for PCM and G.711, which need no header; the rest has `header`.
    """

    tag: int
    rate: int
    channels: int
    start: int
    length: int
    samples: int | None
    plain: str | None
    header: bytes
    flaws: tuple[str, ...]


def read_wave(reader: BinaryIO, size: int) -> Wave:
    """Find the audio in a RIFF, RF64 or BW64 of `size` bytes; NotAudioError if there is none."""
    reader.seek(0)
    magic = reader.read(12)[:4]
    form, long_size, position = b"", 0, 12
    for _ in range(_MAX_CHUNKS):
        name, length = _chunk(reader, position)
        if name == b"data":
            break
        if name == b"fmt ":
            form = reader.read(min(length, 1024))
        elif name == b"ds64" and magic != b"RIFF" and length >= 24:
            long_size = int.from_bytes(reader.read(24)[8:16], "little")
        position += 8 + length + length % 2
    else:
        raise NotAudioError("The WAV has no audio in its first chunks.")
    if magic != b"RIFF" and length == 0xFFFFFFFF and long_size < 1 << 63:
        length = long_size
    there, flaws = _extent(reader, size, position + 8, length)
    return _describe(form, position + 8, there, flaws)


def _chunk(reader: BinaryIO, position: int) -> tuple[bytes, int]:
    reader.seek(position)
    head = reader.read(8)
    if len(head) < 8:
        raise NotAudioError("The WAV ends before its audio begins.")
    return head[:4], int.from_bytes(head[4:], "little")


def _extent(reader: BinaryIO, size: int, start: int, declared: int) -> tuple[int, list[str]]:
    """How many bytes of audio follow `start`, and what is wrong with what the header said."""
    there = size - start
    if declared == there:
        return there, []
    if declared > there:
        return there, [LENGTH_UNKNOWN if declared >= _OPEN_ENDED else TRUNCATED]
    if _only_chunks(reader, size, start + declared + declared % 2):
        return declared, []
    return there, [HEADER_LENGTH_WRONG if declared else LENGTH_UNKNOWN]


def _only_chunks(reader: BinaryIO, size: int, position: int) -> bool:
    """Is all that follows a chain of well-formed chunks, as tags and cue points are?"""
    for _ in range(_MAX_CHUNKS):
        if position >= size:
            return True
        if size - position < 8:
            return False
        name, length = _chunk(reader, position)
        if not all(32 <= byte < 127 for byte in name) or position + 8 + length > size:
            return False
        position += 8 + length + length % 2
    return False


def _describe(form: bytes, start: int, length: int, flaws: list[str]) -> Wave:
    if len(form) < 14:
        raise NotAudioError("The WAV does not say what its audio is.")
    tag, channels, rate, _, block = struct.unpack_from("<HHIIH", form)
    bits = int.from_bytes(form[14:16], "little")
    if tag == _EXTENSIBLE and len(form) >= 26:
        tag = int.from_bytes(form[24:26], "little")
    if not 1 <= channels <= MAX_CHANNELS or rate not in RATES:
        raise NotAudioError("The WAV's channels or sampling rate are out of bounds.")
    bits = 8 if tag in (_ALAW, _MULAW) else bits
    plain, per_block = _PLAIN.get((tag, bits)), 1
    if plain:
        block = bits // 8 * channels  # whatever the form says of blocks may be wrong
    elif tag in (_PCM, _FLOAT):
        raise NotAudioError("The WAV's samples have a width that is not taken.")
    elif tag in _FRAMES:
        block, per_block = _FRAMES[tag]
    block = max(block, 1)
    if length % block:
        length -= length % block
        if TRUNCATED not in flaws:
            flaws.append(TRUNCATED)
    if length <= 0:
        raise NotAudioError("The WAV holds no audio.")
    samples = length // block * per_block if plain or tag in _FRAMES else None
    header = b"" if plain else _header(form, length)
    return Wave(tag, rate, channels, start, length, samples, plain, header, tuple(flaws))


def _header(form: bytes, length: int) -> bytes:
    padded = form + b"\0" * (len(form) % 2)
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + padded
    most = 0xFFFFFFFF - len(chunks) - 8
    return (
        b"RIFF"
        + struct.pack("<I", len(chunks) + 8 + min(length, most))
        + chunks
        + b"data"
        + struct.pack("<I", min(length, 0xFFFFFFFF))
    )


def pcm_header(rate: int, channels: int, samples: int | None) -> bytes:
    """The header of a 16-bit PCM WAV; lengths of 0xFFFFFFFF where `samples` is not known."""
    block = 2 * channels
    form = struct.pack("<HHIIHH", _PCM, channels, rate, rate * block, block, 16)
    length = 0xFFFFFFFF if samples is None else samples * block
    return _header(form, length)
