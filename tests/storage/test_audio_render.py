"""Peaks and copies: what was decoded, drawn and encoded again."""

import io
import json
import tracemalloc

import pytest

from storage.audio.decode import measure, open_track
from storage.audio.formats import NAMES
from storage.audio.render import Format, Peaks, transcode, waveform
from storage.audio.wave import read_wave
from tests.storage import soundfiles
from tests.storage.soundfiles import MEDIA, noise, tone, wav


def peaks_of(body: bytes, points: int, media: str | None = None) -> list[list[int]]:
    with open_track(io.BytesIO(body), len(body), media, NAMES) as track:
        return waveform(track, points)


def copy_of(body: bytes, to: Format, media: str | None = None) -> list[bytes]:
    pieces: list[bytes] = []
    with open_track(io.BytesIO(body), len(body), media, NAMES) as track:
        transcode(track, to, pieces.append)
    return pieces


def heard(body: bytes) -> tuple[str, int, int, float]:
    with open_track(io.BytesIO(body), len(body), None, NAMES) as track:
        found = measure(track, 1e9)
    return found.codec, found.channels, found.sample_rate, found.duration


def test_peaks_are_per_channel_and_tell_loud_from_quiet() -> None:
    quiet, loud = tone(1, channels=2, loud=0.1), tone(1, channels=2, loud=1.0)
    left, right = peaks_of(wav(quiet + loud, channels=2), 10)
    assert left == [12] * 5 + [127] * 5
    assert right == [6] * 5 + [63] * 5


@pytest.mark.parametrize("points", [1, 7, 100, 800, 2000])
@pytest.mark.parametrize("seconds", [0.01, 1, 20])
def test_there_are_always_as_many_points_as_were_asked_for(points: int, seconds: float) -> None:
    (only,) = peaks_of(wav(tone(seconds)), points)
    assert len(only) == points
    assert max(only) in (63, 64)
    assert min(only) > 0


def test_the_loudest_moment_of_a_long_call_is_where_it_was() -> None:
    samples = bytearray(600 * 16000)
    samples[450 * 16000 : 450 * 16000 + 2] = b"\x00\x80"
    (only,) = peaks_of(wav(bytes(samples)), 100)
    assert [at for at, peak in enumerate(only) if peak] == [75]
    assert only[75] == 127


@pytest.mark.parametrize(
    "body",
    [soundfiles.mp3(2, 2), soundfiles.opus(2, 2), soundfiles.flac(2, 2)],
    ids=soundfiles.label,
)
def test_peaks_of_compressed_stereo(body: bytes) -> None:
    left, right = peaks_of(body, 20)
    assert all(50 < peak < 80 for peak in left[2:18])
    assert all(20 < peak < 45 for peak in right[2:18])


@pytest.mark.parametrize("points", [1, 100])
def test_twelve_hours_of_blocks_stay_few_and_small(points: int) -> None:
    peaks = Peaks(points, 8000, 1)
    piece = noise(1 << 16)
    tracemalloc.start()
    for _ in range(2000):
        peaks.add(piece)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    peaks.add(b"", final=True)
    assert peaks.points(points) == [[127] * points]
    assert most < 2 << 20


@pytest.mark.parametrize("points", [1, 3, 10])
def test_a_click_in_hours_of_silence_is_where_it_was(points: int) -> None:
    silence, click = bytes(1 << 16), b"\xff\x7f" + bytes((1 << 16) - 2)
    for place in (0, 333, 599):
        peaks = Peaks(points, 8000, 1)
        for number in range(600):
            peaks.add(click if number == place else silence)
        peaks.add(b"", final=True)
        (only,) = peaks.points(points)
        assert [at for at, peak in enumerate(only) if peak] == [place * points // 600]


def test_a_wav_copy_of_pcm_is_exact() -> None:
    pcm = tone(2, channels=2)
    copy = b"".join(copy_of(wav(pcm, channels=2, declared=0), "wav"))
    assert copy == wav(pcm, channels=2)


@pytest.mark.parametrize(
    ("body", "media"),
    [
        (wav(noise(8000), tag=soundfiles.ALAW, bits=8), None),
        ((MEDIA / "gsm.wav").read_bytes(), None),
        (noise(1000), "audio/G729"),
        (noise(8001), "audio/PCMU"),
    ],
    ids=soundfiles.label,
)
def test_the_length_of_a_wav_copy_is_exact_where_it_can_be_computed(
    body: bytes, media: str | None
) -> None:
    copy = b"".join(copy_of(body, "wav", media))
    found = read_wave(io.BytesIO(copy), len(copy))
    assert found.flaws == ()
    assert found.start + found.length == len(copy)


def test_the_length_of_other_wav_copies_is_left_open() -> None:
    copy = b"".join(copy_of(soundfiles.mp3(2, 2), "wav"))
    found = read_wave(io.BytesIO(copy), len(copy))
    assert found.flaws == ("length-unknown",)
    assert found.channels == 2
    assert heard(copy)[3] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("to", ["mp3", "ogg"])
@pytest.mark.parametrize(
    ("body", "media", "channels"),
    [
        (wav(tone(3, channels=2), channels=2), None, 2),
        (wav(tone(3)), None, 1),
        (wav(tone(3, 44100), rate=44100), None, 1),
        (wav(tone(3, 11000), rate=11000), None, 1),
        (wav(tone(3, channels=4), channels=4), None, 2),
        (soundfiles.opus(3, 2), None, 2),
        (noise(24000), "audio/PCMA", 1),
        (soundfiles.amr(3), None, 1),
    ],
    ids=soundfiles.label,
)
def test_copies_play_anywhere_and_stereo_stays_stereo(
    body: bytes, media: str | None, channels: int, to: Format
) -> None:
    codec, got, _, duration = heard(b"".join(copy_of(body, to, media)))
    assert codec == {"mp3": "mp3", "ogg": "opus"}[to]
    assert got == channels
    assert duration == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize("to", ["wav", "mp3", "ogg"])
def test_a_copy_comes_in_pieces(to: Format) -> None:
    pieces = copy_of(wav(tone(60)), to)
    assert len(pieces) > 5
    assert max(map(len, pieces)) <= 1 << 17


def test_a_damaged_source_still_gives_a_copy() -> None:
    body = bytearray(soundfiles.flac(4))
    body[len(body) // 2 : len(body) // 2 + 400] = noise(400)
    assert heard(b"".join(copy_of(bytes(body), "ogg")))[3] > 2


def test_a_source_that_changes_on_the_way_keeps_one_shape() -> None:
    both = soundfiles.mp3(1, 1) + soundfiles.encoded(
        "mp3", "libmp3lame", tone(1, 16000, 2), rate=16000, channels=2
    )
    with open_track(io.BytesIO(both), len(both), None, NAMES) as track:
        assert "format-changes" in measure(track, 100).flaws
    codec, _, _, duration = heard(b"".join(copy_of(both, "mp3")))
    assert codec == "mp3"
    assert duration == pytest.approx(2, abs=0.4)


def test_the_samples_are_what_they_are_said_to_be() -> None:
    folder = MEDIA.parents[2] / "samples"
    told = json.loads((folder / "samples.json").read_text())
    assert {one["call_type"] for one in told} == {
        *("customer_service", "direct_marketing", "fault_report", "contract", "other")
    }
    codecs = {heard((folder / one["file"]).read_bytes())[:2] for one in told}
    assert {codec for codec, _ in codecs} == {
        *("pcm_s16le", "pcm_alaw", "pcm_mulaw", "gsm_ms", "mp3", "opus")
    }
    assert {channels for _, channels in codecs} == {1, 2}
