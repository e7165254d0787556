"""Boxes: the same bytes as ever in each place that has them, and none that was harmed opens."""

import secrets
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.exceptions import InvalidTag

from archive.recording import Audio, Call, CallType, Recording
from archive.retention import Expiry
from storage import boxes, cdrs, exports, ledger, notices, scopes, second_factor, uploads
from storage.keyring import Ring
from storage.scopes import Members
from web import cursors

DAY = date(2027, 2, 28)
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
ID = UUID(int=0xA1)
MARK = bytes(range(32, 64))
DIGEST = bytes(range(64, 96)).hex()
PARAMS = [("caller", "+4930123")]
RECORDING = Recording(
    ID,
    "pbx",
    NOW,
    Call("1", CallType.OTHER, NOW, Expiry(NOW, DAY, "rule")),
    Audio(5, DIGEST, 1.0, 1, 8000, "pcm_s16le", "wav"),
)

RING = (
    "AAECAwQFBgcICQoLPCC/f+ff4jm9cae6gdtIXrPitwHATW9LGkvFp3EGb9l0YIzGj+NT2THnPprZwWpf"
    "jRAj3DWa55sP2G5hWbGwhr1pgCiKiWEjdzXtFpjrRoAAt+tOVkE3CYSOvPZYi5u/+8puy5Rz5SimPgSS"
    "ajRgOvkmFfqlh0L5BLwGos6iLz70FniH5pKjHl2nGvhlnQ6pV7ObQlFZ+3KxfZVb2vCNi+Dj7HqQmqhc"
    "nUOmh6KOpBaZwvxW7cDS+I7TUcca"
)
"""The file of a ring with one day, as it was written before there was `storage.boxes`."""

Seal = Callable[[Ring], bytes | str]
Unseal = Callable[[Ring, bytes | str], object]

PLACES: dict[str, tuple[Seal, Unseal, object, str]] = {
    "a reason or a search in the ledger": (
        lambda ring: ledger.seal(ring, DAY, {"reason": "why"})[1],
        lambda ring, sealed: ledger.unseal(ring, DAY, sealed),
        {"reason": "why"},
        "AAECAwQFBgcICQoLJCDsf/4Lc522skbrQYkqWVMrwd4VW46Gn2MZzGfJX1il",
    ),
    "the reason of an export": (
        lambda ring: exports._seal(ring, DAY, ID, "why"),
        lambda ring, sealed: exports._unseal(ring, DAY, ID, sealed),
        "why",
        "AAECAwQFBgcICQoL/8S5jmxUyx5DeQryiizJ1kiEZw==",
    ),
    "the digest of an upload": (
        lambda ring: uploads._sealed(ring, ID, RECORDING),
        lambda ring, sealed: uploads._unsealed(ring, ID, DAY, sealed),
        DIGEST,
        "AAECAwQFBgcICQoLRt1aOYY7Usnwc2cMgg+jKG7uwle81VGzC+t+TBdXwvgDpaZGmiW+Tl1D0N9QxZzP",
    ),
    "a notice": (
        lambda ring: notices._seal(ring, DAY, MARK, {"url": "https://x"}),
        lambda ring, sealed: notices._open(ring, DAY, MARK, sealed),
        {"url": "https://x"},
        "AAECAwQFBgcICQoLn2u/ycOwtiH2Tb/KYmtlZMvmEoJSak51wc979HaCG5r4snVP",
    ),
    "who spoke by a record": (
        lambda ring: cdrs._seal(ring, DAY, "pbx", MARK, {"agent": "anna"}),
        lambda ring, sealed: cdrs._open(ring, DAY, "pbx", MARK, sealed),
        {"agent": "anna"},
        "AAECAwQFBgcICQoLEdkMrqMI3So1Zs7RwM6WmugjF+e3tBLwq0bZgULTAc46",
    ),
    "a second factor": (
        lambda ring: second_factor.seal(ring, "account", "SECRET"),
        lambda ring, sealed: second_factor.unseal(ring, "account", sealed),
        "SECRET",
        "AAECAwQFBgcICQoLlJ66L3RkLX2t7DckbttLBgwtSVenvQ==",
    ),
    "who is in a team": (
        lambda ring: scopes.seal(ring, Members("sales", ("anna",), ("200",))),
        scopes.unseal,
        Members("sales", ("anna",), ("200",)),
        "AAECAwQFBgcICQoL4rWj4UgucQNFK5s26EBBpyFlPNDRYGn3xoOl72Z3AAOEuq4znrkjTgx8H7qq9vPf"
        "CiiK4IqY0DYSdeJJzlt6drDJKgoh2S4z",
    ),
    "the address of a search": (
        lambda ring: cursors.seal_params(ring, PARAMS, NOW),
        lambda ring, sealed: cursors.unseal_params(ring, sealed, NOW),
        (PARAMS, None),
        "AAECAwQFBgcICQoLX6CCI3JmtO6HAVkvngqkPwsPmJGxT_cqsFWuQ0KlxyxV7d-us2yyPdh7fHuIShPy"
        "L-KRIoZ474zPPNRYI-Q",
    ),
}
"""How each is sealed and opened, what was sealed, and what it came to before."""


def text(sealed: bytes | str) -> str:
    return sealed if isinstance(sealed, str) else b64encode(sealed).decode()


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ring:
    """A ring with one day, for which chance is no chance: 0, 1, 2 and so on."""
    monkeypatch.setattr(secrets, "token_bytes", lambda size: bytes(range(size)))
    made = Ring.open(tmp_path / "ring", tmp_path / "root", create=True, today=lambda: DAY)
    made.ensure(DAY, DAY)
    return made


def test_the_ring_is_sealed_as_ever(ring: Ring, tmp_path: Path) -> None:
    assert text((tmp_path / "ring" / "ring").read_bytes()) == RING
    again = Ring.open(tmp_path / "ring", tmp_path / "root", create=False, today=lambda: DAY)
    assert again.day_key(DAY) == ring.day_key(DAY)


@pytest.mark.parametrize("place", PLACES)
def test_what_is_stored_has_the_bytes_it_ever_had(ring: Ring, place: str) -> None:
    seal, unseal, plain, before = PLACES[place]
    sealed = seal(ring)
    assert text(sealed) == before
    assert unseal(ring, sealed) == plain


KEY = boxes.key_for(bytes(32), b"a label")


def test_no_two_boxes_are_alike() -> None:
    made = [boxes.seal(KEY, b"plain", b"data") for _ in range(1000)]
    assert len({each[:12] for each in made}) == 1000
    assert {boxes.unseal(KEY, each, b"data") for each in made} == {b"plain"}


@pytest.mark.parametrize("plain", [b"", b"plain"])
def test_what_was_cut_or_changed_does_not_open(plain: bytes) -> None:
    sealed = boxes.seal(KEY, plain)
    assert len(sealed) == len(plain) + 28
    for place in range(len(sealed)):
        changed = sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
        for harmed in (sealed[:place], sealed[place + 1 :], changed):
            with pytest.raises(InvalidTag):
                boxes.unseal(KEY, harmed)


def test_another_key_label_or_place_does_not_open() -> None:
    sealed = boxes.seal(KEY, b"plain", b"data")
    other_day, other_use = bytes([1]) * 32, boxes.key_for(bytes(32), b"another label")
    for key in (boxes.key_for(other_day, b"a label"), other_use, bytes(32)):
        with pytest.raises(InvalidTag):
            boxes.unseal(key, sealed, b"data")
    for data in (b"", b"Data"):
        with pytest.raises(InvalidTag):
            boxes.unseal(KEY, sealed, data)
