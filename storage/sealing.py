"""The format `CRA1`: how a recording lies in the object store. `docs/format.md` describes it for
others.

    HEADER (176 bytes) | DETAILS (sealed) | CHUNKS (sealed)

The audio is cut into chunks of 64 KiB, each sealed by AES-256-GCM under a key of this attempt
alone. The nonce holds the chunk's number and whether it is the last, the additional data the hash
of the header's fixed fields: a chunk that was changed, cut off, put elsewhere or taken from another
recording does not open. This is the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015)
as age and Tink use it.

The attempt's key is random, and stands in the header wrapped by the key of its expiry day. All
other keys come from it by HKDF-SHA256, a commitment among them: GCM alone does not bind a
ciphertext to one key.
"""

import hashlib
import hmac
import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

CHUNK = 65536
"""Bytes of audio in a chunk; the last may have fewer."""

TAG = 16
NONCE = 12
_FIXED = struct.Struct(">4sBBBB8s16s16s32s")
_WRAP = NONCE + 32 + TAG
_COMMITMENT = 32
HEADER = _FIXED.size + _COMMITMENT + _WRAP + 4
"""Bytes of the header: fixed fields, commitment, wrapped key, and the length of the details."""

_MAGIC, _VERSION, _ALGORITHM, _LOG2_CHUNK = b"CRA1", 1, 1, 16

Random = Callable[[int], bytes]


class DamagedError(ValueError):
    """What is read is not what was sealed: changed, cut, reordered, or another's."""


class WrongKeyError(DamagedError):
    """The key does not open this recording."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What the sealed bytes are bound to: the expiry day, the recording and the attempt."""

    expires_on: date
    recording: UUID
    attempt: UUID


class Seal:
    """The keys of one attempt to store one recording. They live in memory alone."""

    def __init__(
        self, identity: Identity, key: bytes, salt: bytes, *, _random: Random = secrets.token_bytes
    ) -> None:
        """From a key and a salt that are known; `_random` makes the nonces of test vectors."""
        self.identity = identity
        self._key = key
        self._random = _random
        prefix = _FIXED.pack(
            _MAGIC,
            _VERSION,
            _ALGORITHM,
            _LOG2_CHUNK,
            0,
            _day_text(identity.expires_on),
            identity.recording.bytes,
            identity.attempt.bytes,
            salt,
        )
        info = hashlib.sha256(prefix).digest()
        keys = HKDF(hashes.SHA256(), 96, salt, info).derive(key)
        self._payload_key, commitment, details_key = keys[:32], keys[32:64], keys[64:]
        self._fixed = prefix + commitment
        self._hash = hashlib.sha256(self._fixed).digest()
        self._payload = AESGCM(self._payload_key)
        self._details = AESGCM(details_key)

    def __repr__(self) -> str:
        return f"Seal({self.identity})"

    @classmethod
    def new(cls, identity: Identity) -> "Seal":
        """A fresh key and salt, for one attempt that no other may follow under them."""
        return cls(identity, secrets.token_bytes(32), secrets.token_bytes(32))

    @classmethod
    def unwrap(cls, header: bytes, day_key: bytes) -> "Seal":
        """The keys that a header holds. WrongKeyError if the day key does not open it, or
        DamagedError.
        """
        identity, salt = _parse(header)
        nonce, wrapped = header[-4 - _WRAP :][:NONCE], header[-4 - _WRAP + NONCE : -4]
        try:
            key = AESGCM(day_key).decrypt(nonce, wrapped, _wrap_data(identity))
        except InvalidTag:
            raise WrongKeyError("the key of the expiry day does not open this header") from None
        seal = cls(identity, key, salt)
        if not hmac.compare_digest(seal._fixed, header[: len(seal._fixed)]):
            raise WrongKeyError("the header's commitment is to another key")
        return seal

    def header(self, day_key: bytes, details_length: int) -> bytes:
        """The header for details of this sealed length, with the key wrapped by the day's."""
        nonce = self._random(NONCE)
        wrapped = AESGCM(day_key).encrypt(nonce, self._key, _wrap_data(self.identity))
        return self._fixed + nonce + wrapped + struct.pack(">I", details_length)

    def seal_details(self, plain: bytes, kind: bytes = b"details") -> bytes:
        """Seal what is known of the recording: nonce | ciphertext | tag.

        What became known later is of another kind, so that neither passes for the other.
        """
        nonce = self._random(NONCE)
        return nonce + self._details.encrypt(nonce, plain, self._hash + kind)

    def open_details(self, sealed: bytes, kind: bytes = b"details") -> bytes:
        """Open what `seal_details` sealed as this kind. Raises DamagedError."""
        if len(sealed) < NONCE + TAG:
            raise DamagedError("the details are cut off")
        try:
            return self._details.decrypt(sealed[:NONCE], sealed[NONCE:], self._hash + kind)
        except InvalidTag:
            raise DamagedError("the details were changed, or belong to another") from None

    def seal_chunk(self, index: int, last: bool, plain: bytes | memoryview) -> bytes:
        """Seal chunk number `index`. No chunk may ever be sealed twice under one Seal."""
        return self._payload.encrypt(_nonce(index, last), plain, self._hash)

    def open_chunk(self, index: int, last: bool, sealed: bytes | memoryview) -> bytes:
        """Open chunk number `index`. Raises DamagedError."""
        return _open(self._payload, self._hash, index, last, sealed)

    def reader_keys(self) -> bytes:
        """What a worker process needs to read the chunks and nothing else: payload key, header
        hash.
        """
        return self._payload_key + self._hash


class ChunkReader:
    """Opens chunks with the keys of `Seal.reader_keys`, in a process that knows nothing more."""

    def __init__(self, keys: bytes) -> None:
        self._payload, self._hash = AESGCM(keys[:32]), keys[32:]

    def open_chunk(self, index: int, last: bool, sealed: bytes | memoryview) -> bytes:
        """Open chunk number `index`. Raises DamagedError."""
        return _open(self._payload, self._hash, index, last, sealed)


def parse_identity(header: bytes) -> Identity:
    """What a header says that it is bound to; only opening it proves that. Raises DamagedError."""
    return _parse(header)[0]


def details_length(header: bytes) -> int:
    """Bytes of the sealed details that follow a header in an object. Raises DamagedError.

    The header does not authenticate it: with a false length the details do not open.
    """
    _parse(header)
    return int.from_bytes(header[-4:], "big")


def sealed_length(size: int) -> int:
    """Bytes of the sealed chunks of `size` bytes of audio."""
    return size + TAG * -(-size // CHUNK)


def chunk_span(start: int, stop: int, size: int) -> tuple[int, int, int, int, int]:
    """Which chunks hold the bytes `start` to `stop` (exclusive) of `size`.

    Returns the first and the last chunk's number, where the first begins and the last ends among
    the sealed chunks, and how many bytes of the first chunk come before `start`.
    """
    if not 0 <= start < stop <= size:
        raise ValueError("not a range of the recording")
    first, last = start // CHUNK, (stop - 1) // CHUNK
    end = min((last + 1) * (CHUNK + TAG), sealed_length(size))
    return first, last, first * (CHUNK + TAG), end, start - first * CHUNK


def _open(
    cipher: AESGCM, header_hash: bytes, index: int, last: bool, sealed: bytes | memoryview
) -> bytes:
    try:
        return cipher.decrypt(_nonce(index, last), sealed, header_hash)
    except InvalidTag:
        raise DamagedError(f"chunk {index} was changed, moved, or belongs to another") from None


def _nonce(index: int, last: bool) -> bytes:
    return bytes(7) + struct.pack(">IB", index, last)


def _wrap_data(identity: Identity) -> bytes:
    day = _day_text(identity.expires_on)
    return bytes([_VERSION]) + day + identity.recording.bytes + identity.attempt.bytes


def _day_text(day: date) -> bytes:
    return f"{day.year:04}{day.month:02}{day.day:02}".encode()


def _parse(header: bytes) -> tuple[Identity, bytes]:
    if len(header) != HEADER:
        raise DamagedError(f"a header has {HEADER} bytes")
    magic, version, algorithm, log2_chunk, zero, day, recording, attempt, salt = _FIXED.unpack_from(
        header
    )
    if magic != _MAGIC:
        raise DamagedError("this is not a sealed recording: its magic is another")
    if (version, algorithm, log2_chunk, zero) != (_VERSION, _ALGORITHM, _LOG2_CHUNK, 0):
        raise DamagedError("this version, algorithm or chunk size is not known")
    return Identity(_day(day), UUID(bytes=recording), UUID(bytes=attempt)), salt


def _day(text: bytes) -> date:
    try:
        # int() alone would also take a sign, a space or an underscore.
        year, month, day = (int(text[part]) for part in (slice(4), slice(4, 6), slice(6, 8)))
        expires_on = date(year, month, day)
    except ValueError:
        raise DamagedError("the expiry day is no day") from None
    if _day_text(expires_on) != text:
        raise DamagedError("the expiry day is no day")
    return expires_on
