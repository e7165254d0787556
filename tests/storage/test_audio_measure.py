"""Durations are measured from what is there; what is wrong with a file is named, not punished."""

import io
import tracemalloc

import av
import pytest

from archive.errors import NotAudioError, TooLargeError
from storage.audio import decode, facts
from storage.audio.decode import Window, measure, open_track
from storage.audio.facts import AudioFacts
from storage.audio.formats import NAMES
from tests.storage import soundfiles
from tests.storage.soundfiles import MEDIA, noise, rf64, tone, wav

HOURS_12 = 12 * 3600.0


def probe(
    body: bytes,
    media: str | None = None,
    allowed: frozenset[str] = NAMES,
    max_duration: float = HOURS_12,
) -> AudioFacts:
    with open_track(io.BytesIO(body), len(body), media, allowed) as track:
        return measure(track, max_duration)


SECOND = tone(1)
WAVS = [
    (wav(SECOND), "pcm_s16le", 1),
    (wav(tone(1, channels=2), channels=2), "pcm_s16le", 2),
    (wav(bytes(8000), bits=8), "pcm_u8", 1),
    (wav(bytes(24000), bits=24), "pcm_s24le", 1),
    (wav(bytes(64000), bits=32, channels=2), "pcm_s32le", 2),
    (wav(bytes(32000), tag=soundfiles.FLOAT, bits=32), "pcm_f32le", 1),
    (wav(bytes(64000), tag=soundfiles.FLOAT, bits=64), "pcm_f64le", 1),
    (wav(noise(8000), tag=soundfiles.ALAW, bits=8), "pcm_alaw", 1),
    (wav(noise(32000), tag=soundfiles.MULAW, bits=8, channels=4), "pcm_mulaw", 4),
    (wav(noise(1000), tag=soundfiles.G729, bits=0, block=10), "g729", 1),
    (rf64(SECOND), "pcm_s16le", 1),
]


@pytest.mark.parametrize(("body", "codec", "channels"), WAVS, ids=soundfiles.label)
def test_a_wav_of_a_second_is_one(body: bytes, codec: str, channels: int) -> None:
    assert probe(body) == AudioFacts("wav", codec, channels, 8000, 1.0, ())


@pytest.mark.parametrize(
    ("body", "container", "codec", "rate"),
    [
        (soundfiles.mp3(3), "mp3", "mp3", 8000),
        (soundfiles.opus(3), "ogg", "opus", 48000),
        (soundfiles.flac(3), "flac", "flac", 8000),
        (soundfiles.m4a(3), "m4a", "aac", 16000),
        (soundfiles.m4a(3, moov_first=True), "m4a", "aac", 16000),
        (soundfiles.webm(3), "webm", "opus", 48000),
        (soundfiles.amr(3), "amr", "amr_nb", 8000),
    ],
    ids=soundfiles.label,
)
def test_compressed_formats_are_measured_by_decoding(
    body: bytes, container: str, codec: str, rate: int
) -> None:
    found = probe(body)
    assert (found.container, found.codec, found.sample_rate) == (container, codec, rate)
    assert found.duration == pytest.approx(3, abs=0.2)
    assert found.flaws == ()


@pytest.mark.parametrize(
    ("name", "media", "container", "codec"),
    [
        ("gsm.wav", None, "wav", "gsm_ms"),
        ("vorbis.ogg", None, "ogg", "vorbis"),
        ("speech.gsm", "audio/GSM", "audio/GSM;rate=8000;channels=1", "gsm"),
    ],
)
def test_recorded_media(name: str, media: str | None, container: str, codec: str) -> None:
    found = probe((MEDIA / name).read_bytes(), media)
    assert (found.container, found.codec, found.channels) == (container, codec, 1)
    assert found.duration == pytest.approx(1, abs=0.05)
    assert found.flaws == ()


@pytest.mark.parametrize(
    ("body", "media", "codec", "channels", "rate"),
    [
        (noise(16000), "audio/PCMA;channels=2", "pcm_alaw", 2, 8000),
        (noise(16000), "audio/PCMU;rate=16000", "pcm_mulaw", 1, 16000),
        (noise(96000), "audio/L16;rate=16000;channels=3", "pcm_s16be", 3, 16000),
        (noise(1002), "audio/G729", "g729", 1, 8000),
    ],
    ids=soundfiles.label,
)
def test_headerless_audio(body: bytes, media: str, codec: str, channels: int, rate: int) -> None:
    found = probe(body, media)
    assert (found.codec, found.channels, found.sample_rate) == (codec, channels, rate)
    assert found.duration == 1.0
    assert probe(body, found.container) == found


def test_l16_is_big_endian() -> None:
    loud_if_swapped = b"\x00\x7f" * 800
    with open_track(io.BytesIO(loud_if_swapped), 1600, "audio/L16;rate=8000", NAMES) as track:
        frame = next(track.frames())
    assert frame.format.name == "s16"
    assert bytes(frame.planes[0])[:2] == b"\x7f\x00"  # 127, little-endian by now


LIES = [
    (wav(SECOND, declared=0), [facts.LENGTH_UNKNOWN]),
    (wav(SECOND, declared=0xFFFFFFFF), [facts.LENGTH_UNKNOWN]),
    (wav(SECOND, declared=0x7FFFFFFF), [facts.LENGTH_UNKNOWN]),
    (wav(SECOND, declared=999_999), [facts.TRUNCATED]),
    (wav(SECOND, declared=300), [facts.HEADER_LENGTH_WRONG]),
    (wav(SECOND, after=soundfiles.chunk(b"LIST", b"INFO" + bytes(40))), []),
    (wav(SECOND, before=soundfiles.chunk(b"bext", bytes(602))), []),
    (wav(SECOND, block=999), []),
    (rf64(SECOND, declared=1 << 40), [facts.LENGTH_UNKNOWN]),
    (rf64(SECOND, declared=0), [facts.LENGTH_UNKNOWN]),
]


@pytest.mark.parametrize(("body", "flaws"), LIES, ids=soundfiles.label)
def test_a_wav_that_lies_is_a_second_all_the_same(body: bytes, flaws: list[str]) -> None:
    found = probe(body)
    assert found.duration == 1.0
    assert list(found.flaws) == flaws


def test_a_cut_wav_is_as_long_as_what_is_left() -> None:
    body = wav(SECOND)
    found = probe(body[: 44 + 8001])
    assert found.duration == 0.5
    assert found.flaws == (facts.TRUNCATED,)


@pytest.mark.parametrize(
    "body",
    [
        soundfiles.mp3(4),
        soundfiles.opus(4),
        soundfiles.flac(4),
        soundfiles.m4a(4, moov_first=True),
        soundfiles.webm(4),
        soundfiles.amr(4),
    ],
    ids=soundfiles.label,
)
def test_a_cut_file_is_taken_measured_and_marked(body: bytes) -> None:
    found = probe(body[: len(body) * 6 // 10 + 7])
    assert 1 < found.duration < 3.5
    assert facts.TRUNCATED in found.flaws


def test_damaged_frames_are_marked_and_the_rest_is_measured() -> None:
    body = bytearray(soundfiles.flac(4))
    middle = len(body) // 2
    body[middle : middle + 400] = noise(400)
    found = probe(bytes(body))
    assert facts.DAMAGED_FRAMES in found.flaws
    assert 2 < found.duration <= 4


def test_a_stream_that_does_not_say_its_length() -> None:
    found = probe(soundfiles.webm(3, live=True))
    assert found.flaws == (facts.LENGTH_UNKNOWN,)
    assert found.duration == pytest.approx(3, abs=0.1)


def test_a_flac_that_claims_more_and_one_that_claims_less() -> None:
    body = bytearray(soundfiles.flac(3))
    for samples, flaw in ((8000, facts.HEADER_LENGTH_WRONG), (80_000, facts.TRUNCATED)):
        body[22:26] = samples.to_bytes(4, "big")
        found = probe(bytes(body))
        assert found.duration == 3.0
        assert found.flaws == (flaw,)


@pytest.mark.parametrize(
    "body",
    [
        wav(b""),
        wav(b"", declared=0xFFFFFFFF),
        wav(b"", after=soundfiles.chunk(b"LIST", b"INFO")),
        wav(b"\0"),
        wav(SECOND)[:30],
        wav(SECOND)[:44],
        rf64(SECOND)[:34],
        wav(SECOND, channels=0, block=2),
        wav(SECOND, channels=17),
        wav(SECOND, rate=0),
        wav(SECOND, bits=12),
        wav(SECOND, tag=0x92),
        b"RIFF\0\0\0\0WAVE" + soundfiles.chunk(b"junk", b"") * 2000,
        soundfiles.flac()[:42],
        soundfiles.opus()[:100],
        soundfiles.m4a()[:2000],
        soundfiles.video_only(),
        b"fLaC" + noise(5000),
        b"OggS" + noise(5000),
        b"\x1aE\xdf\xa3" + noise(5000),
        b"\0\0\0\x18ftypM4A " + noise(5000),
        b"#!AMR\n",
        b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + b"no frames here" * 50,
    ],
    ids=soundfiles.label,
)
def test_what_holds_no_audio_is_refused(body: bytes) -> None:
    with pytest.raises(NotAudioError):
        probe(body)


def test_a_format_that_is_not_allowed_is_named() -> None:
    with pytest.raises(NotAudioError, match="`mp3`"):
        probe(soundfiles.mp3(), allowed=NAMES - {"mp3"})
    with pytest.raises(NotAudioError, match="`raw`"):
        probe(noise(800), "audio/PCMA", allowed=NAMES - {"raw"})
    with pytest.raises(NotAudioError, match="`g729`"):
        probe(WAVS[-2][0], allowed=NAMES - {"g729"})
    with pytest.raises(NotAudioError, match="`wav`"):
        probe(WAVS[0][0], allowed=frozenset({"mp3"}))


@pytest.mark.parametrize(
    "body", [wav(tone(4)), soundfiles.mp3(4), soundfiles.opus(4)], ids=soundfiles.label
)
def test_longer_than_the_limit_is_too_large(body: bytes) -> None:
    with pytest.raises(TooLargeError):
        probe(body, max_duration=3)
    assert probe(body, max_duration=4.2).duration == pytest.approx(4, abs=0.2)


def test_hours_of_silence_in_little_flac_stop_at_the_limit() -> None:
    hour = soundfiles.encoded("flac", "flac", bytes(3600 * 16000))
    assert len(hour) < 1 << 20
    body = io.BytesIO(hour)
    tracemalloc.start()
    with open_track(body, len(hour), None, NAMES) as track, pytest.raises(TooLargeError):
        measure(track, 1800)
    at = body.tell()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert at < len(hour) * 0.75
    assert peak < 4 << 20


def test_a_wav_over_four_gigabytes_is_measured_without_being_read() -> None:
    class Huge(io.BytesIO):
        def seek(self, offset: int, whence: int = 0) -> int:
            return super().seek(min(offset, 1 << 20), whence)

    head = rf64(bytes(2 << 20), declared=6 << 30)
    size = len(head) - (2 << 20) + (6 << 30)
    with open_track(Huge(head), size, None, NAMES) as track:
        found = measure(track, 1e9)
    assert found.duration == (6 << 30) / 16000
    assert found.flaws == ()


def test_no_file_can_be_opened_from_within_another() -> None:
    body = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n"
    for demuxer in ("hls", "concat", "sdp"):
        window = Window(io.BytesIO(body), 0, len(body))
        with pytest.raises((NotAudioError, PermissionError)):
            decode._open(window, demuxer, "test")


def test_a_second_stream_is_noted() -> None:
    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as output:
        streams = [output.add_stream("pcm_s16le", rate=8000, layout="mono") for _ in range(2)]
        for stream in streams:
            frame = av.AudioFrame(format="s16", layout="mono", samples=8000, align=1)
            frame.planes[0].update(SECOND)
            frame.sample_rate = 8000
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    found = probe(out.getvalue())
    assert facts.OTHER_STREAMS in found.flaws
    assert found.duration == 1.0


def test_a_cover_picture_is_no_stream() -> None:
    picture = b"\0image/png\0\x03\0\x89PNG\r\n\x1a\n" + noise(200)
    frame = b"APIC" + len(picture).to_bytes(4, "big") + b"\0\0" + picture
    sizes = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    found = probe(b"ID3\x03\0\0" + sizes + frame + soundfiles.mp3(3))
    assert (found.container, found.flaws) == ("mp3", ())


def test_tags_in_another_alphabet_are_no_fault() -> None:
    tag = soundfiles.chunk(b"TIT2", b"")[:4] + b"\0\0\0\x06\0\0\x03\xe4\xf6\xe5\xff\xfe"
    found = probe(b"ID3\x03\0\0\0\0\0" + bytes([len(tag)]) + tag + soundfiles.mp3(3))
    assert found.container == "mp3"


def test_a_window_is_a_header_and_a_part_of_a_file() -> None:
    window = Window(io.BytesIO(b"0123456789"), 3, 4, b"AB")
    assert window.read() == b"AB"
    assert window.read(2) == b"34"
    assert window.read(100) == b"56"
    assert window.read(1) == b""
    assert window.seek(-3, 2) == 3
    assert window.read(9) == b"456"
    assert window.seek(99) == 99
    assert window.read(1) == b""
