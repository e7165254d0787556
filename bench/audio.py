"""Calls to send: WAV files of noise, so that nothing on the way can make them smaller."""

import random
import wave
from pathlib import Path


def call(folder: Path, size: int) -> Path:
    """A WAV file of `size` bytes of 16-bit PCM at 8 kHz, and its header."""
    file = folder / f"call-{size}.wav"
    if not file.exists():
        block = random.Random(size).randbytes(1 << 20)
        frames = (block * (size // len(block) + 1))[: size - 44 - size % 2]
        with wave.open(str(file), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(8000)
            out.writeframes(frames)
    return file
