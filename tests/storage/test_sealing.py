"""The format: vectors that never change, a reader written from the document alone, and every harm
that can come to sealed bytes.
"""

import json
import re
import struct
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from archive.recording import Audio, Call, CallType, Recording
from archive.retention import Expiry
from storage.recordings import to_details
from storage.sealing import (
    CHUNK,
    HEADER,
    TAG,
    ChunkReader,
    DamagedError,
    Identity,
    Seal,
    WrongKeyError,
    chunk_span,
    details_length,
    parse_identity,
    sealed_length,
)

DOCUMENT = Path(__file__).parents[2] / "docs/format.md"
DAY_KEY = bytes(range(32))
IDENTITY = Identity(date(2027, 2, 28), UUID(int=0xA1), UUID(int=0xB2))
DETAILS = b'{"call_id":"1"}'


def sealed(seal: Seal, audio: bytes, details: bytes = DETAILS, day_key: bytes = DAY_KEY) -> bytes:
    """A whole object."""
    block = seal.seal_details(details)
    starts = range(0, len(audio), CHUNK)
    return b"".join(
        [
            seal.header(day_key, len(block)),
            block,
            *(
                seal.seal_chunk(at // CHUNK, at + CHUNK >= len(audio), audio[at : at + CHUNK])
                for at in starts
            ),
        ]
    )


def opened(whole: bytes, day_key: bytes, size: int) -> tuple[bytes, bytes]:
    """Open a whole object as the archive does: the size is known from elsewhere."""
    header = whole[:HEADER]
    seal = Seal.unwrap(header, day_key)
    begin = HEADER + details_length(header)
    details = seal.open_details(whole[HEADER:begin])
    final = (size - 1) // CHUNK
    audio = b""
    for index in range(final + 1):
        at = begin + index * (CHUNK + TAG)
        stop = at + min(CHUNK, size - index * CHUNK) + TAG
        audio += seal.open_chunk(index, index == final, whole[at:stop])
    return details, audio


def read_by_document(whole: bytes, day_key: bytes) -> tuple[bytes, bytes]:
    """Another reader, written from docs/format.md with nothing of the archive's code.

    Raises ValueError or InvalidTag.
    """
    if whole[0:8] != b"CRA1\x01\x01\x10\x00":
        raise ValueError("not CRA1, version 1")
    wrap_data = whole[4:5] + whole[8:48]
    data_key = AESGCM(day_key).decrypt(whole[112:124], whole[124:172], wrap_data)
    info = sha256(whole[0:80]).digest()
    keys = HKDF(SHA256(), 96, whole[48:80], info).derive(data_key)
    if keys[32:64] != whole[80:112]:
        raise ValueError("commitment")
    header_hash = sha256(whole[0:112]).digest()
    (length,) = struct.unpack(">I", whole[172:176])
    block, chunks = whole[176 : 176 + length], whole[176 + length :]
    details = AESGCM(keys[64:96]).decrypt(block[:12], block[12:], header_hash + b"details")
    if not chunks:
        raise ValueError("no chunk")
    audio = b""
    count = -(-len(chunks) // 65552)
    for number in range(count):
        nonce = bytes(7) + struct.pack(">I", number) + bytes([number == count - 1])
        part = chunks[number * 65552 : (number + 1) * 65552]
        audio += AESGCM(keys[0:32]).decrypt(nonce, part, header_hash)
    return details, audio


def vector() -> dict[str, str]:
    """The vector that the document prints."""
    found = re.search(r"```json\n(\{.*?\})\n```", DOCUMENT.read_text(), re.DOTALL)
    assert found
    read: dict[str, str] = json.loads(found[1])
    return read


def vector_audio() -> bytes:
    """As the document says: byte number i is i modulo 251."""
    return bytes(i % 251 for i in range(int(vector()["audio bytes"])))


def vector_object(audio: bytes) -> bytes:
    """An object of the vector's keys, ids, details and nonces."""
    known = vector()
    nonces = iter([bytes.fromhex(known["details nonce"]), bytes.fromhex(known["wrap nonce"])])
    seal = Seal(
        Identity(
            date.fromisoformat(known["day"]), UUID(known["recording"]), UUID(known["attempt"])
        ),
        bytes.fromhex(known["data key"]),
        bytes.fromhex(known["salt"]),
        _random=lambda length: next(nonces)[:length],
    )
    return sealed(seal, audio, known["details"].encode(), bytes.fromhex(known["day key"]))


def test_what_is_written_is_what_the_document_says() -> None:
    known = vector()
    whole = vector_object(vector_audio())
    begin = HEADER + details_length(whole[:HEADER])
    prefix = whole[:80]
    keys = HKDF(SHA256(), 96, prefix[48:], sha256(prefix).digest()).derive(
        bytes.fromhex(known["data key"])
    )
    assert [keys[:32].hex(), keys[32:64].hex(), keys[64:].hex()] == [
        known["payload key"],
        known["commitment"],
        known["meta key"],
    ]
    assert sha256(whole[:112]).hexdigest() == known["header hash"]
    assert whole[begin : begin + 16].hex() == known["first 16 of chunk 0"]
    assert whole[begin + CHUNK : begin + CHUNK + TAG].hex() == known["tag of chunk 0"]
    assert whole[:HEADER].hex() == known["header"]
    assert whole[HEADER:begin].hex() == known["sealed details"]
    assert whole[begin + CHUNK + TAG :].hex() == known["last chunk"]
    assert sha256(whole).hexdigest() == known["sha256 of the object"]
    assert read_by_document(whole, bytes.fromhex(known["day key"])) == (
        known["details"].encode(),
        vector_audio(),
    )


def test_a_recording_of_one_chunk_is_what_the_document_says() -> None:
    known, whole = vector(), vector_object(b"audio")
    assert whole[: -len(b"audio") - TAG].hex() == known["header"] + known["sealed details"]
    assert whole[-len(b"audio") - TAG :].hex() == known["only chunk"]
    assert sha256(whole).hexdigest() == known["sha256 of the short object"]
    day_key = bytes.fromhex(known["day key"])
    assert read_by_document(whole, day_key) == (known["details"].encode(), b"audio")


def test_the_document_names_every_member_of_the_details() -> None:
    moment = datetime(2026, 2, 28, 9, 30, tzinfo=UTC)
    expiry = Expiry(moment.replace(year=2027), IDENTITY.expires_on, "rule")
    call = Call("1", CallType.OTHER, moment, expiry)
    audio = Audio(5, "00", 1.0, 1, 8000, "pcm_s16le", "wav")
    known = json.loads(to_details(Recording(IDENTITY.recording, "pbx", moment, call, audio)))
    section = DOCUMENT.read_text().split("## Details")[1].split("## Chunks")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(known)


@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5])
def test_a_reader_made_from_the_document_reads_what_we_write(size: int) -> None:
    audio = bytes(i * 7 % 256 for i in range(size))
    whole = sealed(Seal.new(IDENTITY), audio)
    assert read_by_document(whole, DAY_KEY) == (DETAILS, audio)
    assert opened(whole, DAY_KEY, size) == (DETAILS, audio)
    assert len(whole) == HEADER + details_length(whole[:HEADER]) + sealed_length(size)


AUDIO = bytes(i % 251 for i in range(2 * CHUNK + 100))
SEAL = Seal.new(IDENTITY)
WHOLE = sealed(SEAL, AUDIO)
BEGIN = HEADER + details_length(WHOLE[:HEADER])


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
@settings(max_examples=200, deadline=None)
def test_a_flipped_byte_anywhere_is_noticed(position: int, change: int) -> None:
    harmed = bytearray(WHOLE)
    harmed[position] ^= change
    with pytest.raises(DamagedError):
        opened(bytes(harmed), DAY_KEY, len(AUDIO))
    with pytest.raises((ValueError, InvalidTag)):
        read_by_document(bytes(harmed), DAY_KEY)


def test_a_flipped_bit_in_each_byte_of_header_and_details_is_noticed() -> None:
    for position in range(BEGIN):
        harmed = bytearray(WHOLE[: BEGIN + 3 * (CHUNK + TAG)])
        harmed[position] ^= 1
        with pytest.raises(DamagedError):
            opened(bytes(harmed), DAY_KEY, len(AUDIO))


@given(st.integers(0, len(WHOLE) - 1))
@settings(max_examples=100, deadline=None)
def test_a_cut_anywhere_is_noticed(length: int) -> None:
    with pytest.raises(DamagedError):
        opened(WHOLE[:length], DAY_KEY, len(AUDIO))
    with pytest.raises((ValueError, InvalidTag, IndexError, struct.error)):
        read_by_document(WHOLE[:length], DAY_KEY)


@given(st.integers(0, 2), st.integers(0, 2))
def test_a_chunk_opens_in_its_own_place_alone(taken: int, put: int) -> None:
    assume(taken != put)
    chunk = SEAL.seal_chunk(taken, False, b"x" * CHUNK)
    with pytest.raises(DamagedError, match=f"chunk {put}"):
        SEAL.open_chunk(put, False, chunk)


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_last_mark_is_part_of_the_chunk(index: int, last: bool) -> None:
    chunk = SEAL.seal_chunk(index, last, b"audio")
    assert SEAL.open_chunk(index, last, chunk) == b"audio"
    with pytest.raises(DamagedError):
        SEAL.open_chunk(index, not last, chunk)


def test_a_recording_cut_at_a_chunk_is_noticed() -> None:
    with pytest.raises(DamagedError, match="chunk 1"):
        opened(WHOLE[: BEGIN + 2 * (CHUNK + TAG)], DAY_KEY, 2 * CHUNK)


OTHERS = [
    Identity(date(2027, 3, 1), IDENTITY.recording, IDENTITY.attempt),
    Identity(IDENTITY.expires_on, UUID(int=7), IDENTITY.attempt),
    Identity(IDENTITY.expires_on, IDENTITY.recording, UUID(int=7)),
    IDENTITY,
]


@pytest.mark.parametrize("other", OTHERS, ids=["day", "recording", "attempt", "same, sealed again"])
def test_nothing_of_another_recording_opens(other: Identity) -> None:
    foreign = sealed(Seal.new(other), AUDIO)
    for start, stop in [(BEGIN, len(WHOLE)), (HEADER, BEGIN), (0, HEADER), (112, HEADER)]:
        swapped = WHOLE[:start] + foreign[start:stop] + WHOLE[stop:]
        with pytest.raises(DamagedError):
            opened(swapped, DAY_KEY, len(AUDIO))


@pytest.mark.parametrize("other", OTHERS, ids=["day", "recording", "attempt", "same, sealed again"])
def test_the_same_key_and_salt_open_nothing_under_another_identity(other: Identity) -> None:
    """A header rewritten with the day key at hand, for another day, recording or attempt."""
    one, two = Seal(IDENTITY, b"k" * 32, b"s" * 32), Seal(other, b"k" * 32, b"s" * 32)
    chunk = one.seal_chunk(0, True, b"audio")
    if other == IDENTITY:
        assert two.open_chunk(0, True, chunk) == b"audio"
        return
    with pytest.raises(DamagedError):
        two.open_chunk(0, True, chunk)
    with pytest.raises(DamagedError):
        two.open_details(one.seal_details(DETAILS))


def test_another_day_key_is_told_apart_from_damage() -> None:
    with pytest.raises(WrongKeyError):
        Seal.unwrap(WHOLE[:HEADER], bytes(32))


def test_a_commitment_to_another_key_is_refused() -> None:
    """A wrap that opens, made by who holds the day key, around a key that is not the committed."""
    other = Seal(IDENTITY, b"k" * 32, WHOLE[48:80]).header(DAY_KEY, 0)
    with pytest.raises(WrongKeyError, match="commitment"):
        Seal.unwrap(WHOLE[:112] + other[112:], DAY_KEY)


@given(st.binary(max_size=300))
def test_noise_is_never_a_header(noise: bytes) -> None:
    for attempt in (noise, b"CRA1" + noise, WHOLE[:8] + noise):
        with pytest.raises(DamagedError):
            Seal.unwrap(attempt, DAY_KEY)


@pytest.mark.parametrize("day", [b"20270230", b"00000101", b" 2027228", b"2027_1_1", b"2027W011"])
def test_a_day_that_is_none_is_refused(day: bytes) -> None:
    with pytest.raises(DamagedError, match="day"):
        parse_identity(WHOLE[:8] + day + WHOLE[16:HEADER])


@pytest.mark.parametrize("position", [4, 5, 6, 7])
def test_an_unknown_version_algorithm_or_chunk_size_is_refused(position: int) -> None:
    header = bytearray(WHOLE[:HEADER])
    header[position] += 1
    with pytest.raises(DamagedError, match="not known"):
        parse_identity(bytes(header))


def test_the_header_says_what_it_is_bound_to() -> None:
    assert parse_identity(WHOLE[:HEADER]) == IDENTITY
    assert Seal.unwrap(WHOLE[:HEADER], DAY_KEY).identity == IDENTITY


def test_every_sealing_is_under_keys_of_its_own() -> None:
    objects = {sealed(Seal.new(IDENTITY), b"audio") for _ in range(20)}
    assert len({whole[48:80] for whole in objects}) == 20
    assert len({whole[-21:] for whole in objects}) == 20


def test_a_worker_reads_chunks_with_its_keys_and_no_details() -> None:
    keys = SEAL.reader_keys()
    assert ChunkReader(keys).open_chunk(0, True, SEAL.seal_chunk(0, True, b"audio")) == b"audio"
    with pytest.raises(DamagedError):
        ChunkReader(keys).open_chunk(0, True, WHOLE[HEADER:BEGIN])


def test_a_seal_never_shows_its_keys() -> None:
    seal = Seal(IDENTITY, b"K" * 32, b"S" * 32)
    assert repr(seal) == str(seal) == f"Seal({IDENTITY})"


@given(st.data())
def test_the_chunks_of_a_range_hold_it_and_no_more(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 5 * CHUNK))
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    first, last, begin, end, skip = chunk_span(start, stop, size)
    assert first * CHUNK + skip == start
    assert first * CHUNK <= start < (first + 1) * CHUNK
    assert last * CHUNK < stop <= (last + 1) * CHUNK
    assert begin == first * (CHUNK + TAG)
    assert end - begin == sealed_length(min((last + 1) * CHUNK, size) - first * CHUNK)
    assert end <= sealed_length(size)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1])
def test_the_sealed_length_is_that_of_the_chunks(size: int) -> None:
    chunks = [AUDIO[at : min(at + CHUNK, size)] for at in range(0, size, CHUNK)]
    lengths = (len(SEAL.seal_chunk(0, False, chunk)) for chunk in chunks)
    assert sealed_length(size) == sum(lengths)


@given(st.integers(0, len(AUDIO) - 1), st.integers(1, len(AUDIO)))
@settings(max_examples=60, deadline=None)
def test_a_range_is_read_from_its_chunks_alone(start: int, stop: int) -> None:
    assume(start < stop)
    first, last, begin, end, skip = chunk_span(start, stop, len(AUDIO))
    span = WHOLE[BEGIN + begin : BEGIN + end]
    audio = b""
    for index in range(first, last + 1):
        at = (index - first) * (CHUNK + TAG)
        audio += SEAL.open_chunk(index, index == 2, span[at : at + CHUNK + TAG])
    assert audio[skip : skip + stop - start] == AUDIO[start:stop]


@pytest.mark.parametrize(("start", "stop"), [(-1, 1), (0, 0), (5, 4), (0, 11)])
def test_what_is_no_range_is_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="not a range"):
        chunk_span(start, stop, 10)
