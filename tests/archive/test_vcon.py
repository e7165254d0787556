"""vCons: what is read of one, in both spellings, and what is refused."""

import base64
import hashlib
import json
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import vcon
from archive.recording import Audio, Call, CallType, Direction, Recording
from archive.retention import Expiry

AUDIO = b"audio"
DIGEST = base64.urlsafe_b64encode(hashlib.sha512(AUDIO).digest()).decode().rstrip("=")


def document(**dialog: Any) -> bytes:
    recording = {
        "type": "recording",
        "start": "2026-11-25T09:30:00.000+00:00",
        "duration": 61.2,
        "parties": [1, 0],
        "originator": 1,
        "mediatype": "audio/x-wav",
        "url": "https://pbx.example/call.wav",
        "content_hash": f"sha512-{DIGEST}",
        **dialog,
    }
    whole = {
        "vcon": "0.4.0",
        "uuid": "0183878b-dacf-8e27-973a-91e26eb8001b",
        "created_at": "2026-11-25T09:32:00Z",
        "parties": [
            {"tel": "+358401234567", "name": "Anna", "role": "agent"},
            {"mailto": "x@example", "tel": "+358407654321"},
        ],
        "dialog": [{"type": "text", "body": "hello"}, recording],
    }
    return json.dumps(whole).encode()


def test_a_recording_of_a_vcon_is_read() -> None:
    found = vcon.read(document())
    assert found.fields == {
        "call_id": "0183878b-dacf-8e27-973a-91e26eb8001b",
        "started_at": "2026-11-25T09:30:00.000+00:00",
        "caller": "+358407654321",
        "callee": "+358401234567",
        "agent": "Anna",
    }
    assert found.sha512 == hashlib.sha512(AUDIO).digest()


def test_what_was_renamed_is_read_by_both_names() -> None:
    old = vcon.read(document(content_hash=None, alg="SHA-512", signature=DIGEST))
    assert old.sha512 == hashlib.sha512(AUDIO).digest()
    several = vcon.read(document(content_hash=["sha256-x", f"SHA512-{DIGEST}"]))
    assert several.sha512 == old.sha512
    assert vcon.read(document(content_hash=None)).sha512 is None


def test_a_contact_centre_tells_more() -> None:
    found = vcon.read(document(interaction_id="i-1", skill="faults", parties=[[0, 1]])).fields
    assert (found["call_id"], found["queue"], found["callee"]) == ("i-1", "faults", "+358401234567")


def test_parties_that_are_not_there_are_left_out() -> None:
    found = vcon.read(document(parties=[7, -1, "x", True], originator=9)).fields
    assert not {"caller", "callee"} & found.keys()


@pytest.mark.parametrize(
    ("given_document", "why"),
    [
        (b"", "is not JSON"),
        (b"[1]", "is no vCon"),
        (b'{"payload": "signed"}', "is no vCon"),
        (b'{"dialog": []}', "must have one dialog"),
        (document(type="text"), "must have one dialog"),
        (document(body="UklGRg"), "holds audio in another encoding"),
        (document(body="Ukl*Rg", encoding="base64url"), "holds audio that is no base64url"),
        (document(content_hash="sha512-short"), "has a content_hash that is none"),
        (document(content_hash="sha512-\u00e4"), "has a content_hash that is none"),
    ],
)
def test_anything_else_is_refused(given_document: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        vcon.read(given_document)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
)


@given(_JSON, _JSON, _JSON, _JSON)
def test_any_json_is_read_or_refused(a: Any, b: Any, c: Any, d: Any) -> None:
    for whole in (a, {"dialog": a}, {"parties": b, "dialog": [
        {"type": "recording", "parties": a, "originator": c, "content_hash": d}]}):  # fmt: skip
        with suppress(ValueError):
            vcon.read(json.dumps(whole).encode())


def test_audio_within() -> None:
    found = vcon.read(document(body="UklG-_8", encoding="base64url", url=None))
    assert (found.body, found.url) == (b"RIF\xfb\xff", "")
    assert "RIF" not in repr(found)
    there = vcon.read(document(url="https://a.example/x.wav"))
    assert (there.body, there.url) == (None, "https://a.example/x.wav")


def recording(direction: Direction | None) -> Recording:
    started = datetime(2026, 11, 24, 7, 30, tzinfo=UTC)
    expiry = Expiry(started + timedelta(days=365), date(2027, 11, 24), "P1Y")
    call = Call(
        "c-1", CallType.CONTRACT, started, expiry, direction,
        caller="+358401234567", callee="3201", agent="Åke", queue="north", customer="C-1",
    )  # fmt: skip
    audio = Audio(len(AUDIO), "00" * 32, 61.2, 2, 8000, "pcm_s16le", "wav", ())
    return Recording(uuid4(), "pbx", started, call, audio)


@pytest.mark.parametrize("direction", [*Direction, None])
def test_what_is_written_can_be_read(direction: Direction | None) -> None:
    one = recording(direction)
    audio = vcon.beside("a.wav", "audio/wav", hashlib.sha512(AUDIO).digest())
    written = vcon.write(one, one.received_at, audio)
    found = vcon.read(json.dumps(written).encode())
    assert found.sha512 == hashlib.sha512(AUDIO).digest()
    assert found.fields == {
        "call_id": "c-1",
        "started_at": one.call.started_at.isoformat(),
        "caller": "+358401234567",
        "callee": "3201",
        "agent": "Åke",
        "queue": "north",
    }
    [dialog] = written["dialog"]
    assert dialog["parties"] == [[0, 1], [0, 1]], "nobody said who is on which channel"
    assert len(written["parties"]) == (2 if direction in ("inbound", "outbound") else 3)
    agents = [number for number, each in enumerate(written["parties"]) if "role" in each]
    assert agents == [{"inbound": 1, "outbound": 0}.get(direction or "", 2)]
    assert json.loads(written["attachments"][0]["body"])["customer"] == "C-1"
    assert written["uuid"] == str(one.id)
