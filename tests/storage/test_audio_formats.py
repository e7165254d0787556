"""What a body is: told from its bytes, from a declared type for headerless audio alone."""

import pytest

from archive.errors import NotAudioError
from storage.audio import formats
from storage.audio.formats import RawType, declared, recognise
from tests.storage import soundfiles


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (soundfiles.wav(bytes(100)), "wav"),
        (soundfiles.rf64(bytes(100)), "wav"),
        (soundfiles.mp3(), "mp3"),
        (soundfiles.opus(), "ogg"),
        (soundfiles.flac(), "flac"),
        (soundfiles.m4a(), "m4a"),
        (soundfiles.webm(), "webm"),
        (soundfiles.amr(), "amr"),
        (b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + soundfiles.flac(), "flac"),
    ],
    ids=soundfiles.label,
)
@pytest.mark.parametrize("media", [None, "text/plain", "audio/PCMA", "audio/mpeg"])
def test_magic_bytes_outweigh_what_was_declared(body: bytes, name: str, media: str | None) -> None:
    # A bare MP3 frame is weak evidence: there alone what was declared weighs more.
    weak = name == "mp3" and not body.startswith(b"ID3")
    expected = "raw" if weak and media == "audio/PCMA" else name
    assert recognise(body[: formats.HEAD], len(body), media) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"this is no sound, though its name ends in .wav",
        b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1/x.ts\n",
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=audio 5004 RTP/AVP 8\r\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"[playlist]\nFile1=http://127.0.0.1/\n",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"\xff\xd8\xff\xe0" + bytes(100),
        b"%PDF-1.7",
        b"RIFF\x10\0\0\0WEBPVP8 ",
        b"\x1f\x8b\x08\0" + bytes(100),
        b"\xff\xf1\x50\x80" + bytes(100),
        bytes(1000),
        soundfiles.noise(5000),
    ],
    ids=soundfiles.label,
)
def test_what_is_not_audio_is_refused(body: bytes) -> None:
    with pytest.raises(NotAudioError):
        recognise(body[: formats.HEAD], len(body), None)
    with pytest.raises(NotAudioError):
        recognise(body[: formats.HEAD], len(body), "audio/wav")


def test_a_playlist_is_refused_even_as_headerless_audio() -> None:
    with pytest.raises(NotAudioError, match="playlist"):
        recognise(b"#EXTM3U\nfile:///etc/passwd\n", 100, "audio/PCMA")


def test_samples_may_begin_like_a_picture() -> None:
    raw = recognise(b"\xff\xd8\xff\xe0" + bytes(12), 16, "audio/L16;rate=8000")
    assert isinstance(raw, RawType)
    assert raw.demuxer == "s16be"


@pytest.mark.parametrize(
    ("media", "expected"),
    [
        ("audio/PCMA", "audio/PCMA;rate=8000;channels=1"),
        ("AUDIO/pcmu; rate=16000; channels=2", "audio/PCMU;rate=16000;channels=2"),
        ('audio/L16; rate="8000"', "audio/L16;rate=8000;channels=1"),
        ("audio/GSM", "audio/GSM;rate=8000;channels=1"),
        ("audio/G729", "audio/G729;rate=8000;channels=1"),
    ],
)
def test_a_declared_type_is_kept_in_one_spelling(media: str, expected: str) -> None:
    raw = declared(media)
    assert raw is not None
    assert raw.media == expected
    assert declared(raw.media) == raw


@pytest.mark.parametrize("media", ["audio/wav", "text/plain", "application/octet-stream", "", "x"])
def test_other_types_declare_nothing(media: str) -> None:
    assert declared(media) is None


@pytest.mark.parametrize(
    "media",
    [
        "audio/L16",
        "audio/PCMA;rate=x",
        "audio/PCMA;rate=-8000",
        "audio/PCMA;rate=٨٠٠٠",
        "audio/PCMA;rate=1",
        "audio/PCMA;rate=9999999999999",
        "audio/PCMA;channels=0",
        "audio/PCMA;channels=17",
        "audio/GSM;rate=16000",
        "audio/G729;channels=2",
    ],
)
def test_parameters_that_make_no_sense_are_refused(media: str) -> None:
    with pytest.raises(NotAudioError):
        declared(media)


@pytest.mark.parametrize(
    ("media", "good", "samples", "bad"),
    [
        ("audio/PCMA;channels=2", 8000, 4000, 8001),
        ("audio/L16;rate=8000;channels=2", 8000, 2000, 8002),
        ("audio/L16;rate=8000", 8000, 4000, 8001),
        ("audio/GSM", 330, 1600, 331),
        ("audio/G729", 100, 800, 101),
        ("audio/G729", 102, 800, 2),
    ],
)
def test_the_length_must_be_whole_frames(media: str, good: int, samples: int, bad: int) -> None:
    raw = declared(media)
    assert raw is not None
    assert raw.measure(good) == samples
    with pytest.raises(NotAudioError):
        raw.measure(bad)


def test_mp3_frames_are_as_long_as_their_headers_say() -> None:
    assert formats.mp3_frame_length(b"\xff\xfb\x90\x00") == 417  # 128 kbit/s, 44.1 kHz
    assert formats.mp3_frame_length(b"\xff\xfb\x92\x00") == 418  # padded
    assert formats.mp3_frame_length(b"\xff\xe3\x48\xc4") == 288  # MPEG 2.5, 32 kbit/s, 8 kHz
    for header in (b"\xff\xff\x90\0", b"\xff\xfb\xf0\0", b"\xff\xfb\x9c\0", b"\xff\xeb\x90\0", b""):
        assert formats.mp3_frame_length(header) == 0
