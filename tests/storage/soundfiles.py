"""Sound files for tests, made on the spot: what PyAV can encode, and headers that lie."""

import io
import math
import random
import struct
import tempfile
from array import array
from functools import cache
from pathlib import Path

import av
from av.audio.resampler import AudioResampler

MEDIA = Path(__file__).parent / "media"

PCM, FLOAT, ALAW, MULAW, G729 = 1, 3, 6, 7, 0x83


@cache
def tone(seconds: float, rate: int = 8000, channels: int = 1, loud: float = 0.5) -> bytes:
    """Interleaved little-endian 16-bit samples; each next channel is half as loud."""
    samples = array("h")
    for at in range(int(seconds * rate)):
        value = loud * 32767 * math.sin(at * 2 * math.pi * 440 / rate)
        samples.extend(int(value / 2**channel) for channel in range(channels))
    return samples.tobytes()


def label(value: object) -> str | None:
    """A name for a parametrized test: encoders put random numbers into what they write."""
    return f"{value[:4]!r}+{len(value)}" if isinstance(value, bytes) else None


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def wav(
    data: bytes,
    *,
    tag: int = PCM,
    bits: int = 16,
    rate: int = 8000,
    channels: int = 1,
    block: int | None = None,
    declared: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A WAV; `declared` is the length that its header claims, in bytes."""
    block = block if block is not None else channels * bits // 8
    length = len(data) if declared is None else declared
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * block, block, bits)
    body = b"WAVE" + chunk(b"fmt ", form) + before
    body += b"data" + struct.pack("<I", length) + data + b"\0" * (len(data) % 2) + after
    outer = length if length in (0, 0xFFFFFFFF) else len(body)
    return b"RIFF" + struct.pack("<I", outer) + body


def rf64(data: bytes, *, declared: int | None = None) -> bytes:
    length = len(data) if declared is None else declared
    sizes = struct.pack("<QQQI", len(data) + 72, length, length // 2, 0)
    plain = wav(data, declared=0xFFFFFFFF, before=b"")
    return b"RF64\xff\xff\xff\xffWAVE" + chunk(b"ds64", sizes) + plain[12:]


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def encoded(
    container: str,
    codec: str,
    pcm: bytes,
    *,
    rate: int = 8000,
    channels: int = 1,
    options: dict[str, str] | None = None,
) -> bytes:
    """16-bit PCM encoded by PyAV."""
    with tempfile.NamedTemporaryFile() as file:  # moving the index to the front needs a name
        _encode(file.name, container, codec, pcm, rate, channels, options or {})
        return file.read()


def _encode(
    path: str,
    container: str,
    codec: str,
    pcm: bytes,
    rate: int,
    channels: int,
    options: dict[str, str],
) -> None:
    layout = "mono" if channels == 1 else "stereo"
    with av.open(path, "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        shape = AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate)
        step = rate * 2 * channels
        for start in range(0, len(pcm), step):
            piece = pcm[start : start + step]
            frame = av.AudioFrame(
                format="s16", layout=layout, samples=len(piece) // 2 // channels, align=1
            )
            frame.planes[0].update(piece)
            frame.sample_rate = rate
            frame.pts = None
            for ready in shape.resample(frame):
                output.mux(stream.encode(ready))
        output.mux(stream.encode(None))


@cache
def mp3(seconds: float = 1, channels: int = 1) -> bytes:
    return encoded("mp3", "libmp3lame", tone(seconds, 8000, channels), channels=channels)


@cache
def opus(seconds: float = 1, channels: int = 1) -> bytes:
    pcm = tone(seconds, 48000, channels)
    return encoded("ogg", "libopus", pcm, rate=48000, channels=channels)


@cache
def flac(seconds: float = 1, channels: int = 1) -> bytes:
    return encoded("flac", "flac", tone(seconds, 8000, channels), channels=channels)


@cache
def m4a(seconds: float = 1, *, moov_first: bool = False) -> bytes:
    options = {"movflags": "faststart"} if moov_first else {}
    return encoded("ipod", "aac", tone(seconds, 16000), rate=16000, options=options)


@cache
def webm(seconds: float = 1, *, live: bool = False) -> bytes:
    options = {"live": "1"} if live else {}
    return encoded("webm", "libopus", tone(seconds, 48000), rate=48000, options=options)


@cache
def amr(seconds: float = 1) -> bytes:
    return encoded("amr", "libopencore_amrnb", tone(seconds))


def video_only() -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(5):
            frame = av.VideoFrame(64, 64, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return out.getvalue()
