"""The running doors do what their OpenAPI documents say.

They are asked once for each answer that a client should expect, then awkwardly, then with generated
requests, good and bad (schemathesis): every answer must be one that the document tells of.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from urllib.parse import quote

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from archive import export
from archive.access import OPERATORS, READERS, Level
from archive.bounds import Bounds
from storage import export_making
from storage.audio.formats import Format
from tests.services import Service
from tests.sounds import tone
from tests.web.test_openapi import DOCUMENTS, ROUTES, SCHEMAS, every_door, names, operations_of
from web import openapi

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

for _media in ("audio/*", "application/offset+octet-stream", "application/vcon"):
    schemathesis.openapi.media_type(_media, st.binary(max_size=1000))


def now(**ago: float) -> str:
    return (datetime.now(UTC) - timedelta(**ago)).isoformat()


@dataclass(frozen=True)
class Client:
    """Asks the running doors, and holds each answer against the document."""

    service: Service
    session: requests.Session

    def ask(
        self,
        door: openapi.Door,
        label: str,
        expected: int,
        token: str | None = None,
        **case: Any,
    ) -> requests.Response:
        """Send one request, made by hand, and check its answer; `label` is method and path."""
        method, path = label.split(" ")
        made = SCHEMAS[door][path][method].Case(**case)
        answer = self.validated(door, made, token or LEVEL[door], not_errors=expected < 500)
        assert answer.status_code == expected, answer.text
        return answer

    def validated(
        self, door: openapi.Door, case: Any, level: str, *, not_errors: bool = True
    ) -> Any:
        case.headers["Authorization"] = f"Bearer {self.service.tokens.get(level, level)}"
        answer = case.call(base_url=getattr(self.service, door), session=self.session, timeout=30)
        case.validate_response(answer, checks=CHECKS if not_errors else CHECKS[1:])
        return answer


LEVEL: dict[openapi.Door, str] = {
    "ingest": str(Level.UPLOADER),
    "retrieval": str(Level.SUPERVISOR),
    "operations": str(Level.AUDITOR),
}


async def asking(service: Service, ask: Callable[[Client], None]) -> None:
    """Run a blocking client beside the doors, which answer on this very loop."""

    def run() -> None:
        with requests.Session() as session:
            ask(Client(service, session))

    await asyncio.to_thread(run)


PUT = "PUT /v1/recordings/{call_id}"
POST = "POST /v1/recordings"
ONE = "GET /v1/recordings/{id}"


def put(client: Client, expected: int, call_id: str, audio: bytes, **more: Any) -> dict[str, Any]:
    query = {"call_type": "fault_report", "started_at": now(hours=1), **more.pop("query", {})}
    answer = client.ask(
        "ingest", PUT, expected, path_parameters={"call_id": quote(call_id, safe="")}, query=query,
        body=audio, media_type=more.pop("media_type", "audio/*"), **more,
    )  # fmt: skip
    return dict(answer.json())


async def test_what_is_taken_in_is_answered_as_documented(service: Service) -> None:
    await asking(service, _take_in)


def _take_in(client: Client) -> None:
    sound, started = tone(), {"started_at": now(hours=1)}
    receipt = put(client, 201, "a", sound, query={**started, "caller": "+358 9 000 0001"})
    assert put(client, 200, "a", sound, query=started) == receipt
    documented = DOCUMENTS["ingest"]["components"]["schemas"]["Receipt"]
    assert receipt.keys() == documented["properties"].keys() == set(documented["required"])
    put(client, 409, "a", tone(pitch=880), query=started)
    put(client, 400, "b", sound, headers={"Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="})
    put(client, 400, "b", sound, headers={"Content-Digest": "sha-256=:short:"})
    put(client, 401, "b", sound, token="nobody")
    put(client, 403, "b", sound, token="supervisor")
    put(client, 413, "b", bytes(client.service.limits.max_bytes + 1))
    put(client, 415, "b", b"GIF89a, and no sound at all")
    put(client, 415, "b", sound, headers={"Content-Encoding": "gzip"})
    put(client, 422, "b", sound, query={"call_type": "chat", "started_at": "noon"})
    metadata = {"call_id": "c", "call_type": "other", "started_at": now(hours=2)}
    form = {"metadata": metadata, "audio": sound}
    client.ask("ingest", POST, 201, body=form, media_type="multipart/form-data")
    client.ask("ingest", POST, 400, body={"audio": sound}, media_type="multipart/form-data")


async def test_what_is_found_and_heard_is_answered_as_documented(service: Service) -> None:
    await asking(service, _find_and_hear)


def _find_and_hear(client: Client) -> None:
    sound = tone(2.0)
    one = {"id": put(client, 201, "a", sound)["id"]}
    put(client, 201, "b", tone(pitch=880))
    page = client.ask("retrieval", "GET /v1/recordings", 200, query={"limit": 1}).json()
    cursor = page["next"].partition("cursor=")[2]
    client.ask("retrieval", "GET /v1/recordings", 200, query={"cursor": cursor})
    client.ask("retrieval", "GET /v1/recordings", 400, query={"agnet": "x"})
    found = client.ask("retrieval", ONE, 200, path_parameters=one).json()
    documented = DOCUMENTS["retrieval"]["components"]["schemas"]["Recording"]
    assert found.keys() == documented["properties"].keys() == set(documented["required"])
    whole = client.ask("retrieval", f"{ONE}/audio", 200, path_parameters=one)
    assert whole.content == sound
    # What a copy need not have, the original has.
    assert {"accept-ranges", "etag", "repr-digest"} <= whole.headers.keys()
    for span, status in (("bytes=10-19", 206), ("bytes=999999-", 416)):
        client.ask(
            "retrieval", f"{ONE}/audio", status, path_parameters=one, headers={"Range": span}
        )
    for kind in get_args(Format):
        client.ask("retrieval", f"{ONE}/audio", 200, path_parameters=one, query={"format": kind})
    for span, status in (("bytes=10-19", 206), ("bytes=999999-", 416)):
        asked = {"query": {"format": "wav"}, "headers": {"Range": span}}
        client.ask("retrieval", f"{ONE}/audio", status, path_parameters=one, **asked)
    client.ask("retrieval", "HEAD /v1/recordings/{id}/audio", 200, path_parameters=one)
    client.ask("retrieval", f"POST{ONE[3:]}/reasons", 201, path_parameters=one, **body("POST"))
    client.ask("retrieval", f"POST{ONE[3:]}/reasons", 400, path_parameters=one)
    drawn = client.ask("retrieval", f"{ONE}/waveform", 200, path_parameters=one).json()
    asked = names("retrieval", "/v1/recordings/{id}/waveform", "get")["points"]["schema"]
    assert len(drawn["channels"][0]) == asked["default"]
    for points, status in ((asked["maximum"], 200), (asked["maximum"] + 1, 400)):
        client.ask(
            "retrieval", f"{ONE}/waveform", status, path_parameters=one, query={"points": points}
        )
    for method, path, _ in operations_of("retrieval"):
        if "{id}" in path and "glass" not in path and "agree" not in path:
            absent = {"id": "019d2f6e-7c1a-7b44-9a55-0d6c3f5a1e02"}
            client.ask("retrieval", f"{method} {path}", 404, path_parameters=absent, **body(method))


REDACT = f"PUT{ONE[3:]}/redaction"


async def test_what_is_redacted_is_answered_as_documented(service: Service) -> None:
    await asking(service, _redact)


def _redact(client: Client) -> None:
    one = {"path_parameters": {"id": put(client, 201, "a", tone(2.0))["id"]}}
    redaction = f"{ONE}/redaction"
    client.ask("retrieval", redaction, 404, **one)
    client.ask("retrieval", f"{ONE}/audio", 200, query={"format": "wav", "silent": "0-90"}, **one)
    client.ask("retrieval", f"{ONE}/audio", 422, query={"format": "wav", "silent": "9-3"}, **one)
    client.ask("retrieval", f"{ONE}/audio", 400, query={"silent": "0-90"}, **one)
    client.ask("retrieval", REDACT, 201, **one, **body("PUT"))
    client.ask("retrieval", redaction, 200, **one)
    for part in ("", "/audio", "/waveform"):
        client.ask("retrieval", ONE + part, 200, **one)
        for token, status in (("supervisor", 403), ("privacy", 200)):
            asked = {"query": {"version": "original"}, "token": token}
            client.ask("retrieval", ONE + part, status, **one, **asked)
    for spans, status in (([], 422), ([{"start": 9, "stop": 20}], 403)):
        less = {"body": {"spans": spans, "reason": "x"}, "media_type": "application/json"}
        client.ask("retrieval", REDACT, status, **one, **less)
    client.ask("retrieval", REDACT, 400, **one)
    delete = f"DELETE{ONE[3:]}/redaction"
    client.ask("retrieval", delete, 403, **one)
    client.ask("retrieval", delete, 400, token="privacy", **one)
    client.ask("retrieval", delete, 204, **one, **body("DELETE"))


def body(method: str) -> dict[str, Any]:
    """What has to be sent with a method of the retrieval door."""
    if method == "DELETE":
        return {"headers": {"Archive-Reason": "x"}, "token": "privacy"}
    if method not in ("POST", "PUT"):
        return {}
    said = {"reason": "complaint 4711", "spans": [{"start": 0, "stop": 90}]}
    return {"body": said, "media_type": "application/json"}


async def test_a_recording_that_is_gone_is_answered_as_documented(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep(client: Client) -> None:
        kept.update(put(client, 201, "a", tone()))

    def ask_again(client: Client) -> None:
        for method, path, _ in operations_of("retrieval"):
            if "/v1/recordings/{id}" in path:
                one = {"id": kept["id"]}
                client.ask(
                    "retrieval", f"{method} {path}", 410, path_parameters=one, **body(method)
                )
        certificate = "GET /v1/certificates/{id}"
        for door in ("retrieval", "operations"):
            client.ask(door, certificate, 404, path_parameters={"id": kept["id"]})
        client.ask("operations", "GET /v1/expiry", 200)
        # 503 while something is overdue, which is an answer and no failure.
        client.ask("operations", "GET /readyz", 503)

    def ask_for_certificates(client: Client) -> None:
        one = {"id": kept["id"]}
        for door in ("retrieval", "operations"):
            client.ask(door, "GET /v1/certificates/{id}", 200, path_parameters=one)
            page = "GET /v1/certificates/{id}/page"
            client.ask(door, page, 200, path_parameters=one, query={"lang": "sv"})
            client.ask(door, page, 400, path_parameters=one, query={"lang": "de"})

    kept: dict[str, Any] = {}
    await asking(service, keep)
    await service.turn_all_clocks(timedelta(days=367), monkeypatch)
    await asking(service, ask_again)
    await service.erase()
    await service.night()
    await asking(service, ask_for_certificates)


async def test_a_broken_glass_is_answered_as_documented(service: Service) -> None:
    def ask(client: Client) -> None:
        json_body: dict[str, Any] = {"media_type": "application/json"}
        json_body["body"] = {"reason": "threat", "approver": "test-privacy", "minutes": 5}
        one = client.ask("retrieval", "POST /v1/glass", 201, **json_body).json()
        client.ask("retrieval", "POST /v1/glass", 400, media_type="application/json", body={})
        grant, end = "POST /v1/glass/{id}/grant", "DELETE /v1/glass/{id}"
        client.ask("retrieval", grant, 200, "privacy", path_parameters=one)
        client.ask("retrieval", grant, 404, "privacy", path_parameters=one)
        client.ask("retrieval", end, 204, path_parameters=one)
        client.ask("retrieval", end, 404, path_parameters=one)
        json_body["body"] = {**json_body["body"], "approver": "test-admin"}
        other = client.ask("retrieval", "POST /v1/glass", 201, **json_body).json()
        client.ask("operations", grant, 200, "admin", path_parameters=other)
        client.ask("operations", end, 204, "admin", path_parameters=other)
        client.ask("operations", end, 404, "admin", path_parameters=other)

    await asking(service, ask)


async def test_an_export_is_answered_as_documented(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "ALONE", 1)
    kept: list[Any] = []

    def ask(client: Client) -> None:
        ids = [
            put(client, 201, each, tone(pitch=300 + 10 * len(each)))["id"] for each in ("a", "bb")
        ]
        sent: dict[str, Any] = {"media_type": "application/json"}
        sent["body"] = {"recordings": ids[:1], "reason": "complaint 4711"}
        kept.append(client.ask("retrieval", "POST /v1/exports", 201, **sent).json())
        sent["body"] = {**sent["body"], "recordings": ids}
        kept.append(client.ask("retrieval", "POST /v1/exports", 201, **sent).json())
        sent["body"] = {"recordings": ["019d2f6e-7c1a-7b44-9a55-0d6c3f5a1e02"], "reason": "x"}
        client.ask("retrieval", "POST /v1/exports", 404, **sent)
        client.ask("retrieval", "POST /v1/exports", 400, media_type="application/json", body={})
        documented = DOCUMENTS["retrieval"]["components"]["schemas"]["Export"]
        assert kept[0].keys() == documented["properties"].keys() == set(documented["required"])
        [mine, mass] = [{"path_parameters": {"id": each["id"]}} for each in kept]
        for method, status in (("GET", 503), ("HEAD", 503)):
            client.ask("retrieval", f"{method} /v1/exports/{{id}}/file", status, **mine)
        client.ask("retrieval", "GET /v1/exports/{id}/file", 403, **mass)
        client.ask("retrieval", "POST /v1/exports/{id}/agree", 403, **mass)
        client.ask("retrieval", "POST /v1/exports/{id}/agree", 404, "privacy", **mine)
        client.ask("retrieval", "POST /v1/exports/{id}/agree", 200, "privacy", **mass)
        client.ask("retrieval", "GET /v1/exports", 200)

    def fetch(client: Client) -> None:
        mine = {"path_parameters": {"id": kept[0]["id"]}}
        client.ask("retrieval", "GET /v1/exports/{id}", 200, **mine)
        for method in ("HEAD", "GET"):
            client.ask("retrieval", f"{method} /v1/exports/{{id}}/file", 200, **mine)
        client.ask("retrieval", "DELETE /v1/exports/{id}", 204, **mine)
        client.ask("retrieval", "GET /v1/exports/{id}/file", 410, **mine)
        listed = {"headers": {"Archive-Reason": "complaint"}}
        client.ask("retrieval", "GET /v1/recordings.csv", 200, **listed)
        client.ask("retrieval", "GET /v1/recordings.csv", 400)
        client.ask("retrieval", "GET /v1/recordings.csv", 400, query={"agnet": "x"}, **listed)

    await asking(service, ask)
    assert await export_making.run(service.vault)
    await asking(service, fetch)


async def test_the_operations_are_answered_as_documented(service: Service) -> None:
    def ask(client: Client) -> None:
        put(client, 201, "a", tone())
        for path in ("/healthz", "/readyz", "/metrics", "/v1/expiry", "/v1/ledger"):
            client.ask("operations", f"GET {path}", 200)
        body = client.ask("operations", "GET /v1/ledger", 200, query={"limit": 1}).json()
        assert len(body["items"]) == 1
        for part, shown in (("Entry", body["items"][0]), ("LedgerPage", body)):
            documented = DOCUMENTS["operations"]["components"]["schemas"][part]
            assert shown.keys() == documented["properties"].keys() == set(documented["required"])
        client.ask("operations", "GET /v1/ledger", 400, query={"limit": 0})
        tile = "GET /v1/ledger/tile/{name}"
        note = client.ask("operations", "GET /v1/ledger/checkpoint", 200).text
        size = int(note.split("\n")[1])
        for name, status in ((f"0/000.p/{size}", 200), (f"0/000.p/{size + 50}", 404), ("x", 404)):
            client.ask("operations", tile, status, path_parameters={"name": name})
        client.ask("operations", "GET /v1/expiry", 400, query={"from": "today"})

    await asking(service, ask)


async def test_whoever_may_not_is_told_so_as_documented(service: Service) -> None:
    def ask(client: Client) -> None:
        for door in ROUTES:
            stranger = "auditor" if door != "operations" else "supervisor"
            assert Level(stranger) not in (OPERATORS if door == "operations" else READERS)
            for method, path, operation in operations_of(door):
                if not operation["security"]:
                    continue
                names = ("id", "call_id", "name", "day", "path", "session")
                case = {"path_parameters": dict.fromkeys(names, "x")}
                client.ask(door, f"{method} {path}", 401, "nobody", **case)
                client.ask(door, f"{method} {path}", 403, stranger, **case)

    await asking(service, ask)


async def test_whoever_asks_too_often_is_told_so_as_documented(service: Service) -> None:
    often = Bounds.from_texts(rate="1/h")
    tokens = {
        door: await service.key(LEVEL[door], f"often-{door}", bounds=often) for door in ROUTES
    }

    def ask(client: Client) -> None:
        put(client, 201, "a", tone(), token=tokens["ingest"])
        put(client, 429, "b", tone(), token=tokens["ingest"])
        absent = {"path_parameters": {"id": "019d2f6e-7c1a-7b44-9a55-0d6c3f5a1e02"}}
        for door, label, first, case in (
            ("retrieval", f"{ONE}/audio", 404, absent),
            ("operations", "GET /metrics", 200, {}),
        ):
            client.ask(door, label, first, tokens[door], **case)
            client.ask(door, label, 429, tokens[door], **case)
        client.ask("retrieval", f"HEAD{ONE[3:]}/audio", 429, tokens["retrieval"], **absent)

    await asking(service, ask)


async def test_awkward_requests_get_documented_answers(service: Service) -> None:
    """What chance finds seldom: nearly each of these was a 500 once."""
    await asking(service, _ask_awkwardly)


def _ask_awkwardly(client: Client) -> None:
    sound = tone()
    put(client, 201, "{in braces}/ä+?%2F", sound)
    one = {"id": put(client, 201, "a", sound, headers={"Expect": "100-continue"})["id"]}
    put(client, 400, "b", sound, headers={"Expect": "a miracle"})
    for span in (
        b"bytes=\xff-",
        "bytes=\N{ARABIC-INDIC DIGIT ONE}-".encode(),
        b"bytes=0-" + b"9" * 30,
    ):
        client.ask("retrieval", f"{ONE}/audio", 200, path_parameters=one, headers={"Range": span})
    points = {"points": "1" * 5000}
    client.ask("retrieval", f"{ONE}/waveform", 400, path_parameters=one, query=points)
    for edge in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        put(client, 422, "b", sound, query={"started_at": edge})
        for query in ({"from": edge}, {"to": edge}, {"to": edge, "agent": "x"}):
            client.ask("retrieval", "GET /v1/recordings", 400, query=query)
    for broken in (b"no colon", b"X: \x00", b"X: " + b"x" * 70000, b"\r\n".join([b"X: x"] * 500)):
        assert _posted_form(client, broken + b"\r\n") == 400, broken[:20]
    charset = b'Content-Disposition: form-data; name="_charset_"\r\n'
    assert _posted_form(client, charset) == 400


def _posted_form(client: Client, headers: bytes) -> int:
    """POST a form with these headers of its one part; the status."""
    sent = {
        "Authorization": f"Bearer {client.service.tokens['uploader']}",
        "Content-Type": "multipart/form-data; boundary=X",
    }
    body = b"--X\r\n" + headers + b"\r\n" + b"x" * 64 + b"\r\n--X--\r\n"
    answer = client.session.post(
        f"{client.service.ingest}/v1/recordings", data=body, headers=sent, timeout=30
    )
    return answer.status_code


@every_door
async def test_generated_requests_get_documented_answers(
    service: Service, door: openapi.Door
) -> None:
    def ask(client: Client) -> None:
        known = put(client, 201, "known", tone())["id"]
        for found in SCHEMAS[door].get_all_operations():
            _fuzz(client, door, found.ok(), known)

    await asking(service, ask)


def _fuzz(client: Client, door: openapi.Door, operation: Any, known: str) -> None:
    """Ask with what fits the document, then with what does not."""
    modes = [schemathesis.GenerationMode.POSITIVE]
    if operation.definition.raw.get("parameters") or operation.body:
        modes.append(schemathesis.GenerationMode.NEGATIVE)
    for mode in modes:

        @settings(
            max_examples=12, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(HealthCheck), phases=[Phase.generate],
        )  # fmt: skip
        @given(operation.as_strategy(generation_mode=mode), st.booleans())
        def fuzz(case: Any, likely: bool) -> None:
            if likely:
                make_likely(case, known)
            client.validated(door, case, LEVEL[door])

        fuzz()


def make_likely(case: Any, known: str) -> None:
    """Give a generated request what chance does not find: real audio, a call of today, an id."""
    if "id" in case.path_parameters:
        case.path_parameters["id"] = known
    if "started_at" in case.query:
        case.query["started_at"] = now(hours=1)
    if case.method == "PUT":
        case.headers.clear()
        case.body, case.media_type = tone(0.1), "audio/*"
    if case.media_type == "multipart/form-data" and isinstance(case.body, dict):
        case.body["audio"] = tone(0.1)
        if isinstance(case.body.get("metadata"), dict):
            case.body["metadata"]["started_at"] = now(hours=1)
