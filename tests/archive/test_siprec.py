"""Recording metadata of SIPREC as recorders write it: the RFC's, and what strays from it."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import siprec
from archive.recording import parse_instant

RFC = b"""<?xml version="1.0" encoding="UTF-8"?>
<recording xmlns='urn:ietf:params:xml:ns:recording:1'>
  <datamode>complete</datamode>
  <group group_id="7+OTCyoxTmqmqyA/1weDAg==">
    <associate-time>2026-11-25T09:30:00Z</associate-time>
  </group>
  <session session_id="hVpd7YQgRW2nD22h7q60JQ==">
    <sipSessionID>ab30317f1a784dc48ff824d0d3715d86;remote=47755a9de7794ba3</sipSessionID>
    <group-ref>7+OTCyoxTmqmqyA/1weDAg==</group-ref>
  </session>
  <participant participant_id="srfBElmCRp2QB23b7Mpk0w==">
    <nameID aor="sip:+358401234567@example.fi"><name xml:lang="fi">Anna</name></nameID>
  </participant>
  <participant participant_id="zSfPoSvdSDCmU3A3TRDxAw==">
    <nameID aor="sip:3201@example.fi"/>
  </participant>
  <stream stream_id="UAAMm5GRQKSCMVvLyl4rFw=="><label>96</label></stream>
  <participantsessionassoc participant_id="srfBElmCRp2QB23b7Mpk0w==">
    <associate-time>2026-11-25T09:30:02Z</associate-time>
  </participantsessionassoc>
</recording>"""

PREFIXED = b"""<ns:recording xmlns:ns="urn:ietf:params:xml:ns:recording:1"
  xmlns:b="http://vendor.example/metadata">
  <ns:session ns:session_id="5fd4">
    <ns:start-time>2026-11-25T11:30:00+0200</ns:start-time>
  </ns:session>
  <ns:participant participant_id="1"><ns:nameID aor="tel:+358401234567"/></ns:participant>
  <b:callData>
    <b:fromhdr>sip:1@a</b:fromhdr><b:tohdr>sip:2@b</b:tohdr><b:callid>x-1@a</b:callid>
  </b:callData>
</ns:recording>"""

POOR = (
    b"<recording><session session_id='s1'/>"
    b"<participant><aor>sip:1@a</aor></participant></recording>"
)


def test_what_the_rfc_says_is_read() -> None:
    assert siprec.fields(RFC) == {
        "call_id": "ab30317f1a784dc48ff824d0d3715d86",
        "started_at": "2026-11-25T09:30:00Z",
        "caller": "sip:+358401234567@example.fi",
        "callee": "sip:3201@example.fi",
    }


def test_prefixes_and_extensions_are_read() -> None:
    found = siprec.fields(PREFIXED)
    assert found == {
        "call_id": "x-1@a", "started_at": "2026-11-25T11:30:00+0200", "caller": "sip:1@a",
        "callee": "sip:2@b",
    }  # fmt: skip
    assert parse_instant(found["started_at"])


def test_what_is_missing_is_left_out() -> None:
    assert siprec.fields(POOR) == {"call_id": "s1", "caller": "sip:1@a"}
    assert siprec.fields(b"<recording/>") == {}


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"", "is not XML"),
        (b"<recording>", "is not XML"),
        (b"{}", "is not XML"),
        (b'<?xml version="1.0" encoding="none-such"?><recording/>', "is not XML"),
        (b"<html/>", "is no recording metadata"),
        (b"<!DOCTYPE recording><recording/>", "has a document type"),
        ("<!DOCTYPE recording><recording/>".encode("utf-16"), "has a document type"),
        (
            b'<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><recording>&b;</recording>',
            "has a document type",
        ),
        (
            b'<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><recording>&x;</recording>',
            "has a document type",
        ),
        (b"<a>" * 40 + b"</a>" * 40, "is nested too deeply"),
    ],
)
def test_anything_else_is_refused(document: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        siprec.fields(document)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(document: bytes) -> None:
    for each in (document, b"<recording>" + document + b"</recording>"):
        with suppress(ValueError):
            siprec.fields(each)
