"""Audio for tests, made on the spot."""

import io
import math
import struct
import wave


def tone(seconds: float = 1.0, rate: int = 8000, channels: int = 1, pitch: int = 440) -> bytes:
    """A WAV file of 16-bit PCM: a tone, so that two pitches are two different recordings."""
    frames = int(seconds * rate)
    period = [
        struct.pack("<h", int(12000 * math.sin(2 * math.pi * pitch * index / rate))) * channels
        for index in range(min(frames, rate))
    ]
    second = b"".join(period)
    whole, rest = divmod(frames, rate)
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(second * whole + second[: rest * 2 * channels])
    return held.getvalue()
