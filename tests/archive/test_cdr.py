"""Call detail records as real systems write them, and as nobody should."""

import base64
import json
import tracemalloc
from datetime import UTC, datetime, timedelta
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import cdr
from archive.cdr import Detail
from archive.errors import TooLargeError
from archive.sidecar import UnclearError

START = datetime(2025, 11, 24, 16, 0, tzinfo=UTC)
HELSINKI = ZoneInfo("Europe/Helsinki")

MASTER = (
    '"","0401234567","600","from-trunk","""Anna"" <0401234567>","SIP/t-1","SIP/3201-2","Queue",'
    '"600,t","2025-11-24 18:00:00","2025-11-24 18:00:05","2025-11-24 18:01:00",60,55,"ANSWERED",'
    '"DOCUMENTATION","1764000000.17",""\n'
)

FREESWITCH = {
    "core-uuid": "x",
    "variables": {
        "uuid": "a9d6ecff-1c1e-4d4e-9b9b-0f4ac2f0e1aa",
        "direction": "inbound",
        "call_direction": "outbound",
        "start_epoch": "1764000000",
        "start_uepoch": "1764000000000000",
        "answer_epoch": "1764000005",
        "start_stamp": "2025-11-24%2018%3A00%3A00",
        "duration": "60",
    },
    "callflow": [
        {"caller_profile": {"caller_id_number": "3201", "destination_number": "%2B358401234567"}}
    ],
}


def one(body: bytes, zone: ZoneInfo | None = None) -> Detail:
    (found,) = cdr.read(body, zone).details
    return found


def test_asterisks_master_csv_is_known_without_a_heading() -> None:
    found = one(MASTER.encode())
    assert (found.ids, found.started_at) == (("1764000000.17",), START)
    assert (found.answered, found.seconds) == (True, 60)
    assert found.fields == {"caller": "0401234567", "callee": "600"}
    assert not one(MASTER.replace("ANSWERED", "NO ANSWER").encode()).answered


def test_freepbx_rows_are_one_call_by_their_linkedid() -> None:
    text = (
        "calldate,clid,src,dst,disposition,duration,uniqueid,did,recordingfile,cnum,linkedid\n"
        "2025-11-24 18:00:00,x,s,600,NO ANSWER,20,1764000000.17,09123,,0401234567,1764000000.17\n"
        "2025-11-24 18:00:20,x,s,600,ANSWERED,90,1764000020.18,09123,"
        "q-600-0401234567-20251124-180020-1764000020.18.wav,0401234567,1764000000.17\n"
    )
    (call,) = cdr.merged(cdr.read(text.encode(), HELSINKI).details)
    assert call.ids[0] == "1764000000.17"
    assert "1764000020.18" in call.ids
    assert "q-600-0401234567-20251124-180020-1764000020.18" in call.ids
    assert (call.answered, call.started_at, call.seconds) == (True, START, 90)
    assert call.fields == {"caller": "0401234567", "callee": "09123"}


TEXT = json.dumps(FREESWITCH)
FORMS = {
    "as it is": TEXT,
    "percent-encoded": quote(TEXT),
    "in small letters": "%7b" + TEXT[1:].replace("%", "%25").replace(" ", "+"),
    "in base64": base64.b64encode(TEXT.encode()).decode(),
    "a list": f"[{TEXT}]",
    "a list in base64": base64.b64encode(f"[{TEXT}]".encode()).decode(),
    "a list, percent-encoded": quote(f"[{TEXT}]"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("before", ["", "cdr="])
def test_freeswitchs_json_cdr_is_known_in_each_of_its_forms(form: str, before: str) -> None:
    found = one(f"{before}{FORMS[form]}\n".encode())
    assert found.ids == ("a9d6ecff-1c1e-4d4e-9b9b-0f4ac2f0e1aa",)
    assert (found.started_at, found.answered, found.seconds) == (START, True, 60)
    # Not `direction`, which is how the leg came to the switch.
    assert found.fields == {"direction": "outbound", "caller": "3201", "callee": "+358401234567"}


def test_a_call_that_nobody_answered_is_none() -> None:
    unanswered = json.loads(json.dumps(FREESWITCH))
    unanswered["variables"]["answer_epoch"] = "0"
    assert not one(json.dumps(unanswered).encode()).answered


def test_rows_of_our_own_fields() -> None:
    row = {"call_id": 7, "started_at": "2025-11-24T18:00:00+02:00", "duration": 60, "agent": "Ä"}
    found = one(json.dumps([row]).encode())
    assert (found.ids, found.started_at, found.answered) == (("7",), START, True)
    assert found.fields == {"agent": "Ä"}
    for no in ("no", False, "NO ANSWER", 0):
        assert not one(json.dumps([{**row, "answered": no}]).encode()).answered
    assert one(json.dumps([{**row, "answered": True, "duration": 0}]).encode()).answered
    assert not one(json.dumps([{**row, "duration": "0.0"}]).encode()).answered
    text = "call_id;started_at;duration;queue\n7;24.11.;1;600\n8;2025-11-24 18:00:00;1;600\n"
    found = cdr.read(text.encode(), HELSINKI)
    assert found.errors.keys() == {0}
    assert [detail.started_at for detail in found.details] == [START]


@pytest.mark.parametrize(
    "row",
    [
        {"started_at": "2025-11-24T18:00:00Z"},
        {"call_id": "7"},
        {"call_id": "7", "started_at": "2025-11-24 18:00:00"},
        {"call_id": "7", "started_at": "2025-11-24T18:00:00Z", "duration": "long"},
        {"call_id": "7", "started_at": "2025-11-24T18:00:00Z", "duration": "-1"},
        {"call_id": "7", "started_at": "2025-11-24T18:00:00Z", "duration": "nan"},
        {"call_id": "7" * 300, "started_at": "2025-11-24T18:00:00Z"},
        {"call_id": "7", "started_at": "9999-12-31T23:59:59+02:00", "duration": "60"},
        {"call_id": "7\u20288", "started_at": "2025-11-24T18:00:00Z"},
    ],
)
def test_a_row_that_says_too_little_is_refused_alone(row: dict[str, str]) -> None:
    good = {"call_id": "8", "started_at": "2025-11-24T18:00:00Z", "duration": "1"}
    found = cdr.read(json.dumps([row, good]).encode(), None)
    assert (found.wrong, found.errors.keys()) == (1, {0})
    assert [detail.ids for detail in found.details] == [("8",)]


@pytest.mark.parametrize(
    "body",
    [b"[1", b"[" * 100_000, b"%7B", b"cdr=", b"cdr=\xff", b"cdr=?", b"cdr=eyJ", b"cdr=e30K!"],
    ids=range(8),
)
def test_what_holds_no_records_is_refused(body: bytes) -> None:
    with pytest.raises(UnclearError):
        cdr.read(body, None)


MANY = {
    "empty objects": b"[" + b"{}," * 2_700_000 + b"{}]",
    "lists in one record": b'{"a": [' + b"[]," * 2_700_000 + b"[]]}",
    "numbers": b"[" + b"0," * 500_000 + b"0]",
    "rows": b"call_id\n" + b"7\n" * (cdr.MOST + 1),
}


@pytest.mark.parametrize("of", MANY)
def test_more_records_than_a_body_may_hold_are_refused_before_they_take_memory(of: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError, match="send them in several"):
            cdr.read(MANY[of], None)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


def test_of_many_faults_the_first_are_told_and_all_are_counted() -> None:
    found = cdr.read(json.dumps([{}] * cdr.MOST).encode(), None)
    assert (found.details, found.wrong, [*found.errors]) == ([], cdr.MOST, [*range(cdr.TOLD)])


def test_a_heading_without_end_is_none() -> None:
    with pytest.raises(UnclearError, match="over 1000 names"):
        cdr.read(b"call_id" + b"," * 1000 + b"\n7\n" * 2, None)


def test_the_parts_of_one_call_are_merged_in_one_go() -> None:
    rows = [f"7.{number},{1764000000 + number}.1,7.0,ANSWERED" for number in range(cdr.MOST)]
    text = "uniqueid,start,linkedid,disposition\n" + "\n".join(rows)
    (call,) = cdr.merged(cdr.read(text.encode(), None).details)
    assert len(call.ids) == cdr.MOST
    assert call.ended_at - call.started_at == timedelta(seconds=cdr.MOST - 1)


@given(st.binary(max_size=400), st.sampled_from([b"", b"cdr=", b"{", b"%7B"]))
def test_no_bytes_do_anything_else(body: bytes, before: bytes) -> None:
    try:
        found = cdr.read(before + body, HELSINKI)
    except UnclearError:
        return
    assert all(isinstance(each, Detail) for each in found.details)


NAMES = st.sampled_from(["variables", "uuid", "call_id", "started_at", "uniqueid"])
VALUES = st.recursive(
    st.text() | st.integers() | st.none(), lambda of: st.lists(of) | st.dictionaries(NAMES, of)
)


@given(VALUES)
def test_no_json_does_anything_else(value: object) -> None:
    try:
        cdr.read(json.dumps([value]).encode(), None)
    except UnclearError:
        return
