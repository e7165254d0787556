"""Hearing a recording: ranges of the sealed object, and copies that play anywhere.

A range fetches only the chunks that it needs, and a chunk is let out only after its tag was
verified. A copy in another format, or the peaks of a waveform, are made from the sealed object in
an unnamed file, in a process of their own, and kept nowhere. No more objects lie there than there
are such processes: who waits for one has nothing on the disk yet.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from archive import redaction
from archive.access import Caller
from archive.recording import Audio
from archive.redaction import Span
from storage.audio.formats import Format
from storage.audio.pool import SealedSource
from storage.recordings import Opened
from storage.sealing import CHUNK, Seal, chunk_span, sealed_length
from storage.spool import SealedFile
from storage.vault import Vault

_SEALED = sealed_length(CHUNK)

WAV_HEADER = 44
_MOST_OF_A_WAV = 0xFFFFFFFF


def read(vault: Vault, opened: Opened, start: int, stop: int) -> AsyncIterator[bytes]:
    """The bytes `start` to `stop` (exclusive) of a recording as they were sent; see `unsealed`."""
    size = opened.recording.audio.bytes
    return unsealed(vault, opened.object_key, opened.offset, opened.seal, size, start, stop)


async def unsealed(
    vault: Vault, key: str, offset: int, seal: Seal, size: int, start: int, stop: int
) -> AsyncIterator[bytes]:
    """The bytes `start` to `stop` of what lies sealed at `offset` of an object, `size` in all,
    verified chunk by chunk.

    Raises UnavailableError when the store is away, DamagedError when a chunk is not what was
    stored.
    """
    index, _, begin, end, skip = chunk_span(start, stop, size)
    left = stop - start
    buffer = bytearray()
    async with vault.objects.get(key, offset + begin, offset + end) as pieces:
        async for piece in pieces:
            buffer += piece
            # Whole chunks, and with the last bytes also the last chunk, which may be shorter.
            whole = len(buffer) if len(buffer) == end - begin else _whole(len(buffer))
            if not whole:
                continue
            with memoryview(buffer)[:whole] as sealed:
                plain = _opened(seal, index, size, sealed)
            del buffer[:whole]
            begin += whole
            index += whole // _SEALED
            plain = plain[skip : skip + left]
            skip, left = 0, left - len(plain)
            yield plain


def _whole(length: int) -> int:
    return length // _SEALED * _SEALED


def _opened(seal: Seal, index: int, size: int, sealed: memoryview) -> bytes:
    """Open the chunks that stand in `sealed`, from number `index` on."""
    final = (size - 1) // CHUNK
    starts = range(0, len(sealed), _SEALED)
    return b"".join(
        seal.open_chunk(number, number == final, sealed[start : start + _SEALED])
        for number, start in enumerate(starts, index)
    )


def wav_size(audio: Audio) -> int | None:
    """How many bytes the copy of this audio as a WAV has; None for more than a WAV can tell of.

    Its samples were counted when it was taken in, so the copy has a length, and ranges.
    """
    size = WAV_HEADER + _samples(audio) * audio.channels * 2
    return size if size < _MOST_OF_A_WAV else None


def _samples(audio: Audio) -> int:
    return round(audio.duration * audio.sample_rate)


@asynccontextmanager
async def copied(
    vault: Vault,
    caller: Caller,
    opened: Opened,
    to: Format,
    part: tuple[int, int] | None = None,
    silent: Sequence[Span] = (),
    *,
    redacts: bool = False,
) -> AsyncIterator[AsyncIterator[bytes]]:
    """A copy in a format that plays anywhere, streamed while it is made; or a part of a WAV.

    A part costs the decoding of what lies before it, and not its sending. A WAV can be made silent
    in places. `redacts`: it is for a redacted copy, and not to be heard.
    """
    audio = opened.recording.audio
    samples = _samples(audio) if wav_size(audio) else None
    cuts = redaction.cuts(silent, audio.sample_rate)
    async with (
        vault.players.places.taken(caller.id, redacts=redacts),
        _at_hand(vault, opened) as source,
        vault.players.transcode(source, to, samples, part, cuts) as pieces,
    ):
        yield pieces


async def waveform(vault: Vault, caller: Caller, opened: Opened, points: int) -> list[list[int]]:
    """The peaks of each channel, `points` of them, as the audio workers measure them."""
    async with vault.players.places.taken(caller.id), _at_hand(vault, opened) as source:
        return await vault.players.waveform(source, points)


@asynccontextmanager
async def _at_hand(vault: Vault, opened: Opened) -> AsyncIterator[SealedSource]:
    """The sealed object in an unnamed file, for a worker that has to seek in it."""
    size = opened.recording.audio.bytes
    length = sealed_length(size)
    async with vault.objects.get(
        opened.object_key, opened.offset, opened.offset + length
    ) as pieces:
        with await SealedFile.copy(vault.spool, pieces) as held:
            yield SealedSource(
                held.fd, 0, size, opened.seal.reader_keys(), opened.recording.audio.container
            )
