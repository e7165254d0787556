"""What a file says of itself: title, artist, comment, date. Recorders put metadata there.

The texts come from outside and are neither judged nor believed here; they are few and short.
"""

from typing import BinaryIO

from av.audio.stream import AudioStream
from av.container import InputContainer

MOST = 32
LONGEST = 256

Tags = tuple[tuple[str, str], ...]

_INFO = {
    b"INAM": "title",
    b"IART": "artist",
    b"ICMT": "comment",
    b"ICRD": "date",
    b"IPRD": "album",
    b"IGNR": "genre",
    b"ICOP": "copyright",
    b"ISFT": "software",
}
_LIST_BYTES = 1 << 16
_MAX_CHUNKS = 1000


def of_container(opened: InputContainer, stream: AudioStream) -> Tags:
    """The tags of what FFmpeg has opened; those of the stream where the container has none."""
    return _few({**stream.metadata, **opened.metadata})


def of_wave(reader: BinaryIO, size: int) -> Tags:
    """The tags of a WAV: its LIST chunks of type INFO, before or behind the audio."""
    found: dict[str, str] = {}
    position = 12
    for _ in range(_MAX_CHUNKS):
        reader.seek(position)
        head = reader.read(8)
        length = int.from_bytes(head[4:], "little")
        if len(head) < 8 or position + 8 + length > size:
            break
        if head[:4] == b"LIST":
            found.update(_info(reader.read(min(length, _LIST_BYTES))))
        position += 8 + length + length % 2
    return _few(found)


def _info(listed: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    position = 4
    while listed[:4] == b"INFO" and position + 8 <= len(listed):
        name = listed[position : position + 4]
        length = int.from_bytes(listed[position + 4 : position + 8], "little")
        text = listed[position + 8 : position + 8 + length].partition(b"\0")[0]
        if name in _INFO:
            found[_INFO[name]] = text.decode("utf-8", "replace")
        position += 8 + length + length % 2
    return found


def _few(found: dict[str, str]) -> Tags:
    kept = [(name.lower(), text) for name, text in found.items() if text]
    return tuple((name, text) for name, text in kept if max(len(name), len(text)) <= LONGEST)[:MOST]
