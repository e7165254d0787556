"""What is known of a piece of audio, and where a worker finds it.

Flaws are stable words; a recording with flaws is taken, measured and kept as it was sent:

- `truncated`: the end that the format or its header calls for is not there.
- `header-length-wrong`: the header says another length than there is.
- `length-unknown`: the header leaves the length open, as streaming recorders do.
- `damaged-frames`: some frames in the middle could not be decoded.
- `format-changes`: the sampling rate or the channels change on the way.
- `other-streams`: there is more than one stream; the first audio stream was measured.
"""

from dataclasses import dataclass

TRUNCATED = "truncated"
HEADER_LENGTH_WRONG = "header-length-wrong"
LENGTH_UNKNOWN = "length-unknown"
DAMAGED_FRAMES = "damaged-frames"
FORMAT_CHANGES = "format-changes"
OTHER_STREAMS = "other-streams"


@dataclass(frozen=True, slots=True)
class AudioFacts:
    """What was measured. `duration` in seconds, from the audio that is there.

    `container` is one of the names of `[intake] allowed_formats`, or for headerless audio the whole
    media type that it needs to be read again (`audio/PCMA;rate=8000;channels=1`). `codec` is
    FFmpeg's name of it (`pcm_alaw`, `gsm_ms`, `opus`, ...). `tags` is what the file says of itself.
    """

    container: str
    codec: str
    channels: int
    sample_rate: int
    duration: float
    flaws: tuple[str, ...]
    tags: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SealedSource:
    """Sealed chunks in an open file: `size` bytes of plaintext, sealed from `offset` on.

    `keys` is what `Seal.reader_keys()` gives. `media` is the media type, which matters for
    headerless audio alone: either as it was declared or as `AudioFacts.container` keeps it.
    """

    fd: int
    offset: int
    size: int
    keys: bytes
    media: str | None = None

    def __repr__(self) -> str:
        return f"SealedSource(fd={self.fd}, size={self.size})"
