"""Which format is this? Told from the first bytes, and only then handed to that one demuxer.

FFmpeg's own guessing is never asked: it follows playlists to local files and binds ports for SDP
bodies. Here the magic bytes name one format of a short list, and its demuxer is forced. Headerless
audio has no such bytes; for it alone the declared media type is believed (RFC 3551, RFC 2586), and
all that can be checked is that its length is a whole number of frames.
"""

from dataclasses import dataclass
from email.message import Message
from typing import Literal

from archive.errors import NotAudioError

HEAD = 4096  # bytes that `sniff` wants to see, fewer if there are no more
MAX_CHANNELS = 16
RATES = range(1_000, 384_001)  # Hz

RAW = "raw"
DEMUXERS = {
    "wav": "wav",
    "mp3": "mp3",
    "ogg": "ogg",
    "flac": "flac",
    "m4a": "mov",
    "webm": "matroska",
    "amr": "amr",
}
Format = Literal["wav", "mp3", "ogg"]
"""What a copy comes in."""
NAMES = frozenset((*DEMUXERS, "g729", RAW))  # all that `[intake] allowed_formats` may name

_MAGIC = (
    (b"OggS", "ogg"),
    (b"fLaC", "flac"),
    (b"\x1aE\xdf\xa3", "webm"),
    (b"#!AMR\n", "amr"),
    (b"#!AMR-WB\n", "amr"),
)
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
# What is sent by mistake, so that the answer can say what it was. Too short to outweigh a declared
# type: under four bytes (samples may well begin like a JPEG).
_FOREIGN = (
    (b"#EXTM3U", "a playlist"),
    (b"[playlist]", "a playlist"),
    (b"ffconcat", "a playlist"),
    (b"v=0\r\n", "a session description"),
    (b"v=0\n", "a session description"),
    (b"\x89PNG", "a PNG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", "an XML document"),
    (b"FORM", "AIFF"),
    (b".snd", "Sun AU"),
    (b"caff", "Core Audio"),
    (b"riff\x2e\x91\xcf\x11", "Wave64"),
    (b"\x30\x26\xb2\x75", "Windows Media"),
    (b"\x1f\x8b\x08", "gzip"),
    (b"\xff\xd8\xff", "a JPEG image"),
)


@dataclass(frozen=True, slots=True)
class RawType:
    """Headerless audio as it was declared. `frame` in bytes, `samples` per frame and channel."""

    media: str
    demuxer: str
    rate: int
    channels: int
    frame: int
    samples: int

    def measure(self, size: int) -> int:
        """The samples in `size` bytes; NotAudioError when that is no whole number of frames.

        G.729 may end in one comfort noise frame of 2 bytes (RFC 3551, 4.5.6), which has no length.
        """
        frames, rest = divmod(size, self.frame)
        if not frames or (rest and not (self.demuxer == "g729" and rest == 2)):
            raise NotAudioError(
                f"The body is not a whole number of frames of {self.frame} bytes, "
                "which the declared Content-Type calls for."
            )
        return frames * self.samples


def declared(media: str | None) -> RawType | None:
    """The headerless format that a media type names, or None; NotAudioError for bad parameters."""
    if media is None:
        return None
    message = Message()
    message["Content-Type"] = media
    kind = message.get_content_type()
    if kind not in _RAW_KINDS:
        return None
    name, demuxer, width, samples = _RAW_KINDS[kind]
    rate = _parameter(message, "rate", None if demuxer == "s16be" else 8000)
    channels = _parameter(message, "channels", 1)
    if rate not in RATES or not 1 <= channels <= MAX_CHANNELS:
        raise NotAudioError("`rate` or `channels` of the Content-Type is out of bounds.")
    if samples > 1 and (rate, channels) != (8000, 1):
        raise NotAudioError(f"audio/{name} is 8000 Hz and one channel.")
    frame = width if samples > 1 else width * channels
    return RawType(
        f"audio/{name};rate={rate};channels={channels}", demuxer, rate, channels, frame, samples
    )


# media type -> its usual spelling, FFmpeg's raw demuxer, bytes and samples of a frame
_RAW_KINDS = {
    "audio/pcma": ("PCMA", "alaw", 1, 1),
    "audio/pcmu": ("PCMU", "mulaw", 1, 1),
    "audio/l16": ("L16", "s16be", 2, 1),
    "audio/gsm": ("GSM", "gsm", 33, 160),
    "audio/g729": ("G729", "g729", 10, 80),
}


def _parameter(message: Message, name: str, default: int | None) -> int:
    text = message.get_param(name, failobj=None)
    if text is None and default is not None:
        return default
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > 9:
        raise NotAudioError(f"`{name}` of the Content-Type must be there as a whole number.")
    return int(text)


def recognise(head: bytes, size: int, media: str | None) -> str | RawType:
    """The format of what begins with `head`: a key of DEMUXERS or a declared headerless type.

    Strong magic bytes outweigh a declared type, which outweighs weak ones. Raises NotAudioError
    with what it is instead, as far as that can be told.
    """
    if not size:
        raise NotAudioError("The body is empty.")
    if name := _strong(head):
        return name
    foreign = next(((magic, what) for magic, what in _FOREIGN if head.startswith(magic)), None)
    raw = declared(media)
    if raw is not None and (foreign is None or len(foreign[0]) < 4):
        return raw
    if foreign is not None:
        raise NotAudioError(f"This is {foreign[1]}, which is not taken. {_TAKEN}")
    if _is_mp3(head, size):
        return "mp3"
    raise NotAudioError(f"These bytes are no audio format that is known here. {_TAKEN}")


_TAKEN = (
    "Send WAV, MP3, Ogg, FLAC, M4A, WebM or AMR; headerless audio needs its Content-Type "
    "(audio/PCMA, PCMU, L16, GSM or G729)."
)


def _strong(head: bytes) -> str | None:
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return "wav"
    if head[4:8] in _BOXES:
        return "m4a"
    body = head[_id3_length(head) :]
    for magic, name in _MAGIC:
        if body.startswith(magic):
            return name
    return "mp3" if head.startswith(b"ID3") and not _is_adts(body) else None


def _id3_length(head: bytes) -> int:
    """Bytes of an ID3v2 tag, with its header: its size is four times seven bits."""
    if not head.startswith(b"ID3") or len(head) < 10:
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return size + 10


def _is_adts(body: bytes) -> bool:
    return len(body) > 1 and body[0] == 0xFF and body[1] & 0xF6 == 0xF0


def _is_mp3(head: bytes, size: int) -> bool:
    """Is there an MPEG layer III frame, followed by another one or by the end?

    One that does not begin with the first byte is found too: recorders cut where they like.
    """
    for start in range(min(len(head) - 3, 2048)):
        length = mp3_frame_length(head[start : start + 4])
        follower = start + length
        if length and (
            (start == 0 and follower >= size) or mp3_frame_length(head[follower : follower + 4])
        ):
            return True
    return False


def mp3_frame_length(header: bytes) -> int:
    """Bytes of the MPEG layer III frame that begins with these four; 0 if they begin none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return 0
    version, rate_code = header[1] >> 3 & 3, header[2] >> 2 & 3
    bits = header[2] >> 4
    if version == 1 or rate_code == 3 or bits in (0, 15):
        return 0
    rate = (44100, 48000, 32000)[rate_code] >> {3: 0, 2: 1, 0: 2}[version]
    kilobits = _KILOBITS_1[bits] if version == 3 else _KILOBITS_2[bits]
    return (144 if version == 3 else 72) * kilobits * 1000 // rate + (header[2] >> 1 & 1)


_KILOBITS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KILOBITS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


def allow(name: str, allowed: frozenset[str]) -> None:
    """Raise NotAudioError unless the configuration takes the format `name`."""
    if name not in allowed:
        raise NotAudioError(
            f"This is `{name}`, which `[intake] allowed_formats` does not list here. "
            f"Taken are: {', '.join(sorted(allowed))}."
        )
