"""Notices of each system, byte by byte: who is believed, what is kept, and what is answered."""

import base64
import hashlib
import json
import logging
import tomllib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from app import webhooks
from archive.errors import UnauthenticatedError
from archive.webhook import Webhook
from storage import notices
from storage.vault import Vault
from tests.archive.test_vcon import document as vcon_document
from tests.roles import connection
from tests.services import Service, open_service
from tests.sounds import tone
from tests.web import vendors
from tests.web.test_telephony import wire
from tests.web.vendors import AUDIO, Vendor, configured, fetch, rows, vendor
from web import signatures


@pytest.fixture
async def host() -> AsyncIterator[Vendor]:
    async with vendor() as found:
        yield found


@pytest.fixture
def hooks(host: Vendor) -> dict[str, Webhook]:
    return configured(host)


@pytest.fixture
async def hooked(vault: Vault, hooks: dict[str, Webhook]) -> AsyncIterator[Service]:
    async with open_service(vault, webhooks=hooks) as opened:
        yield opened


async def found(service: Service) -> list[dict[str, Any]]:
    answer = await service.get("/v1/recordings")
    return list((await answer.json())["items"])


Make = Callable[[Vendor], tuple[str, bytes]]
NOTICES: dict[str, Make] = {
    "twilio": vendors.twilio,
    "telnyx": vendors.telnyx,
    "vonage": vendors.vonage,
    "own": vendors.own,
}


@pytest.mark.parametrize("name", NOTICES)
async def test_a_notice_becomes_a_recording_that_can_be_heard(
    hooked: Service, host: Vendor, hooks: dict[str, Webhook], name: str
) -> None:
    head, body = NOTICES[name](host)
    answer = await wire(hooked, head, body)
    assert (answer.status, answer.json()) == (202, {"new": 1, "known": 0, "ignored": 0})
    assert await fetch(hooked.vault, hooks) == 1
    [call] = await found(hooked)
    heard = await hooked.get(f"/v1/recordings/{call['id']}/audio")
    assert await heard.read() == AUDIO
    assert call["started_at"].startswith(
        hooked.vault.policy.local(vendors.started()).isoformat()[:11]
    )
    wanted = {
        "twilio": ("twilio", "customer_service", f"CA{1:032x}", None),
        "telnyx": ("telnyx", "fault_report", f"428c31b6-abf3-3bc1-b7f4-{1:012d}", "+358401234567"),
        "vonage": ("vonage", "contract", f"CON-aaaaaaaa-bbbb-cccc-dddd-{1:012d}", None),
        "own": ("recorder", "customer_service", "c-1", "+358401234567"),
    }
    told = (call["source"], call["call_type"], call["call_id"], call.get("caller"))
    assert told == wanted[name]


@pytest.mark.parametrize("name", NOTICES)
async def test_a_notice_that_comes_again_is_known(
    hooked: Service, host: Vendor, hooks: dict[str, Webhook], name: str
) -> None:
    head, body = NOTICES[name](host)
    await wire(hooked, head, body)
    for _ in range(2):
        again = await wire(hooked, *NOTICES[name](host))
        assert (again.status, again.json()["known"]) == (200, 1)
        await fetch(hooked.vault, hooks)
    assert [method for method, _, _ in host.asked].count("GET") == 1
    assert len(await found(hooked)) == 1


async def test_a_notice_is_held_against_the_digests_that_are_announced(
    hooked: Service, host: Vendor
) -> None:
    head, body = vendors.own(host)
    for said, wanted in ((body + b" ", 400), (body, 202)):
        digest = base64.b64encode(hashlib.sha256(said).digest()).decode()
        answer = await wire(hooked, f"{head}Content-Digest: sha-256=:{digest}:\n", body)
        assert answer.status == wanted
        assert len(await rows(hooked.vault)) == (wanted == 202)


async def test_what_each_is_asked_with(
    hooked: Service, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    for make in NOTICES.values():
        await wire(hooked, *make(host))
    await fetch(hooked.vault, hooks)
    basic = base64.b64encode(f"{vendors.ACCOUNT}:{vendors.TWILIO_TOKEN}".encode()).decode()
    recording = f"/2010-04-01/Accounts/{vendors.ACCOUNT}/Recordings/RE{1:032x}"
    twilio, deleted, telnyx, vonage, own = host.asked
    assert twilio == ("GET", f"{recording}.wav?RequestedChannels=2", f"Basic {basic}")
    assert deleted == ("DELETE", recording, f"Basic {basic}")
    assert telnyx == ("GET", "/b/1.wav?X-Amz-Signature=a%2Fb%3D", "")
    assert own == ("GET", "/own.wav", "Bearer for-the-recorder")
    assert vonage[:2] == ("GET", f"/v1/files/bbbbbbbb-aaaa-cccc-dddd-{1:012d}")
    _check_rs256(vonage[2])


def _check_rs256(login: str) -> None:
    said, _, shown = login.removeprefix("Bearer ").rpartition(".")
    raw = [base64.urlsafe_b64decode(part + "==") for part in (*said.split("."), shown)]
    vendors.VONAGE.public_key().verify(raw[2], said.encode(), padding.PKCS1v15(), hashes.SHA256())
    header, claims = json.loads(raw[0]), json.loads(raw[1])
    assert header["alg"] == "RS256"
    assert claims["application_id"] == "78d335fa-323d-0114-9c3d-d6f0d48968cf"
    assert claims["exp"] == claims["iat"] + 300
    assert claims["jti"]


def changed(head: str, body: bytes) -> tuple[str, bytes]:
    """The same notice with one byte of what it says changed on its way."""
    other = body.replace(b"wav", b"wax", 1).replace(b"files", b"filez", 1)
    other = other if other != body else body.replace(b"RE0", b"RE1", 1)
    assert len(other) == len(body)
    assert other != body
    return head, other


BAD: dict[str, Make] = {
    "Twilio, changed": lambda host: changed(*vendors.twilio(host)),
    "Twilio, for another address": lambda host: (
        vendors.twilio(host)[0].replace("call_type=customer_service", "call_type=other"),
        vendors.twilio(host)[1],
    ),
    "Twilio, unsigned": lambda host: (
        vendors.twilio(host)[0].replace("X-Twilio-Signature", "X-Twilio"),
        vendors.twilio(host)[1],
    ),
    "Telnyx, changed": lambda host: changed(*vendors.telnyx(host)),
    "Telnyx, long ago": lambda host: vendors.telnyx(host, age=400),
    "Telnyx, another time": lambda host: (
        (made := vendors.telnyx(host, age=5))[0].replace("-timestamp: ", "-timestamp: 0"),
        made[1],
    ),
    "Vonage, changed": lambda host: changed(*vendors.vonage(host)),
    "Vonage, long ago": lambda host: vendors.vonage(host, age=400),
    "Vonage, signed by nobody": lambda host: vendors.vonage(host, alg="none"),
    "Vonage, signed by another": lambda host: vendors.vonage(host, secret="x" * 32),
    "a key that is wrong": lambda host: vendors.own(host, secret="another"),
    "no key": lambda host: (
        vendors.own(host)[0].replace("Authorization", "X-Nothing"),
        vendors.own(host)[1],
    ),
    "a HMAC that is wrong": lambda host: vendors.signed(host, lambda digest: digest[::-1].hex()),
    "no HMAC": lambda host: vendors.signed(host, lambda digest: ""),
}


@pytest.mark.parametrize("what", BAD)
async def test_who_does_not_sign_as_it_has_to_be_is_not_believed(
    hooked: Service, host: Vendor, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answer = await wire(hooked, *BAD[what](host))
    assert answer.status == 401
    assert await rows(hooked.vault) == []
    assert any("is not believed" in record.getMessage() for record in caplog.records)


async def test_many_wrong_ones_are_not_even_looked_at(hooked: Service, host: Vendor) -> None:
    answers = [await wire(hooked, *vendors.own(host, secret="another")) for _ in range(100)]
    assert {answer.status for answer in answers} == {401, 429}
    assert (await wire(hooked, *vendors.own(host))).status == 429


@pytest.mark.parametrize(
    "shown",
    [
        lambda digest: digest.hex(),
        lambda digest: f"sha256={digest.hex().upper()}",
        lambda digest: base64.b64encode(digest).decode(),
    ],
)
async def test_a_hmac_is_read_as_systems_write_it(
    hooked: Service, host: Vendor, shown: Callable[[bytes], str]
) -> None:
    assert (await wire(hooked, *vendors.signed(host, shown))).status == 202


async def test_the_key_may_be_the_password_of_http_basic(hooked: Service, host: Vendor) -> None:
    head, body = vendors.own(host)
    basic = base64.b64encode(f"any:{vendors.JSON_SECRET}".encode()).decode()
    head = head.replace(f"Bearer {vendors.JSON_SECRET}", f"Basic {basic}")
    assert (await wire(hooked, head, body)).status == 202


def test_the_example_that_twilio_publishes() -> None:
    webhook = _twilio_of("https://mycompany.com", "12345")
    body = (
        b"Digits=1234&To=%2B18005551212&From=%2B14158675310&Caller=%2B14158675310"
        b"&CallSid=CA1234567890ABCDE"
    )
    older = body.replace(b"%2B14158675310", b"%2B12349013030")
    shown = {"X-Twilio-Signature": "0/KCTR6DLpKmkAf8muzZqo1nDgQ="}
    request = make_mocked_request("POST", "/myapp.php?foo=1&bar=2", headers=shown)
    now = datetime.now(UTC)
    signatures.check(webhook, request, older, now)
    with pytest.raises(UnauthenticatedError):
        signatures.check(webhook, request, body, now)


def _twilio_of(public_url: str, secret: str) -> Webhook:
    known = configured(Vendor(port=1))["twilio"]
    return replace(known, public_url=public_url, secret=secret)


async def test_twilio_may_sign_the_port_too(hooked: Service, host: Vendor) -> None:
    head, body = vendors.twilio(host)
    path = "/v1/hooks/twilio?call_type=customer_service"
    fields = vendors.twilio_fields(host)
    with_port = vendors.sha1(path, fields, f"{vendors.OUTSIDE}:443")
    head = head.replace(vendors.sha1(path, fields), with_port)
    assert (await wire(hooked, head, body)).status == 202


@pytest.mark.parametrize(
    "make",
    [
        lambda host: vendors.twilio(host, RecordingStatus="in-progress"),
        lambda host: vendors.twilio(host, RecordingStatus="absent"),
        lambda host: vendors.telnyx(host, event="call.hangup"),
        lambda host: vendors.own(host, {"event": "call.ended"}),
    ],
)
async def test_what_is_of_no_recording_is_answered_and_nothing_comes_of_it(
    hooked: Service, host: Vendor, make: Make
) -> None:
    answer = await wire(hooked, *make(host))
    assert (answer.status, answer.json()["ignored"]) == (200, 1)
    assert await rows(hooked.vault) == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"call": {}}, "call_id"),
        ({"id": None}, "notice"),
        ({"download_url": None}, "notice"),
        ({"download_url": "https://169.254.169.254/latest/meta-data/"}, "notice"),
        ({"download_url": "https://127.0.0.1/x.wav"}, "notice"),
        ({"download_url": "file:///etc/passwd"}, "notice"),
        ({"download_url": "http://a@127.0.0.1:1/x"}, "notice"),
        ({"download_url": "http://elsewhere.example/x"}, "notice"),
        ({"download_url": "http://127.0.0.1:1\\@evil.example/x"}, "notice"),
        ({"call": {"id": "1", "start": "2020-01-01T00:00:00Z"}}, "started_at"),
        ({"call": {"from": f" x{' ' * 60_000}x"}}, "caller"),
    ],
)
async def test_what_cannot_be_fetched_is_refused_at_once(
    hooked: Service, host: Vendor, change: dict[str, object], field: str
) -> None:
    answer = await wire(hooked, *vendors.own(host, change))
    assert answer.status == 422
    assert field in answer.json()["errors"]
    assert await rows(hooked.vault) == []


async def test_a_list_of_notices_is_kept_as_far_as_it_can_be(
    hooked: Service, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    good = {"id": 2, "call": {"id": "c-2", "start": vendors.started().timestamp()}}
    answer = await wire(hooked, *vendors.own(host, {}, good, {"id": 3, "call": {}}))
    assert answer.status == 422
    assert set(answer.json()["errors"]) == {"2.call_id", "2.started_at"}
    assert await fetch(hooked.vault, hooks) == 2
    assert {call["call_id"] for call in await found(hooked)} == {"c-1", "c-2"}


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[]", 400), (b"7", 400), (b"[" * 5000, 400), (b"{}" + b" " * 2**18, 413)],
)
async def test_what_is_no_notice(hooked: Service, host: Vendor, body: bytes, status: int) -> None:
    head, _ = vendors.own(host)
    lines = [line for line in head.splitlines() if not line.startswith("Content-Length")]
    lines.append(f"Content-Length: {len(body)}\n")
    assert (await wire(hooked, "\n".join(lines), body)).status == status


async def test_nothing_of_a_notice_is_readable_where_it_is_kept_or_logged(
    hooked: Service, host: Vendor, caplog: pytest.LogCaptureFixture, hooks: dict[str, Webhook]
) -> None:
    caplog.set_level(logging.DEBUG)
    host.answers.append(vendors.status(500))
    await wire(hooked, *vendors.telnyx(host))
    await fetch(hooked.vault, hooks)
    [row] = await rows(hooked.vault)
    assert row["state"] == "waiting"
    kept = repr(row) + row["details"].hex() + caplog.text
    for needle in ("401234567", "428c31b6", "X-Amz", f"{host.port}/b", b"recording".hex()):
        assert needle not in kept


async def test_who_may_send_can_be_a_matter_of_networks(
    vault: Vault, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    elsewhere = replace(hooks["own"], senders=(ip_network("192.0.2.0/24"),))
    async with open_service(vault, webhooks={"own": elsewhere}) as service:
        assert (await wire(service, *vendors.own(host))).status == 401


async def test_a_vcon_by_its_address(
    hooked: Service, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    digest = base64.urlsafe_b64encode(hashlib.sha512(AUDIO).digest()).rstrip(b"=").decode()
    begun = vendors.started().isoformat()
    wrong = digest[::-1]
    for number, (shown, state) in enumerate(((digest, "done"), (wrong, "waiting"))):
        body = vcon_document(
            url=f"{host.url}/v.wav",
            content_hash=f"sha512-{shown}",
            start=begun,
            interaction_id=f"v-{number}",
        )
        head = (
            "POST /v1/hooks/vcon HTTP/1.1\nHost: archive\nContent-Type: application/json\n"
            f"Authorization: Bearer {vendors.JSON_SECRET}\nContent-Length: {len(body)}\n"
        )
        assert (await wire(hooked, head, body)).status == 202
        await fetch(hooked.vault, hooks)
        assert (await rows(hooked.vault))[number]["state"] == state
    [call] = await found(hooked)
    assert (call["call_id"], call["call_type"]) == ("v-0", "customer_service")


async def told_of(hooked: Service, url: str, query: str = "", **dialog: str) -> int:
    """Tell of the recording at an address; what was answered."""
    said = {"start": vendors.started().isoformat(), "interaction_id": "i-1", **dialog}
    body = vcon_document(url=url, content_hash=None, **said)
    head = (
        f"POST /v1/hooks/vcon{query} HTTP/1.1\nHost: archive\nContent-Type: application/json\n"
        f"Authorization: Bearer {vendors.JSON_SECRET}\nContent-Length: {len(body)}\n"
    )
    return (await wire(hooked, head, body)).status


async def test_a_second_recording_of_an_interaction_is_fetched_and_its_refusal_told(
    hooked: Service, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    host.answers = [lambda _: AUDIO, lambda _: tone(3)]
    for name, status in (("1", 202), ("2", 202), ("1", 200)):
        assert await told_of(hooked, f"{host.url}/{name}.wav") == status
        await fetch(hooked.vault, hooks)
    assert [path for _, path, _ in host.asked] == ["/1.wav", "/2.wav"]
    assert [call["call_id"] for call in await found(hooked)] == ["i-1"]
    async with connection(hooked.vault.pool) as lent:
        [left] = await notices.left(lent)
    assert (left.state, left.tries) == ("refused", 1)


@pytest.mark.parametrize(
    ("more", "query", "named"),
    [
        ("", "?call_id=i-1b", ["i-1", "i-1b"]),
        ('call_id = ["{notice.call_id}-{notice.started_at}"]', "", ["i-1-{}", "i-1-{}"]),
    ],
)
async def test_recordings_of_an_interaction_are_kept_where_the_query_or_a_template_names_each(
    vault: Vault, host: Vendor, more: str, query: str, named: list[str]
) -> None:
    config = vendors.config(host).replace('kind = "vcon"', f'kind = "vcon"\n{more}')
    hooks = webhooks.from_toml(
        Path("config.toml"), tomllib.loads(config)["webhook"], vendors.environ()
    )
    starts = [(vendors.started() + timedelta(minutes=n)).isoformat() for n in (1, 2)]
    async with open_service(vault, webhooks=hooks) as service:
        for number, said in enumerate(("", query)):
            url = f"{host.url}/{number}.wav"
            assert await told_of(service, url, said, start=starts[number]) == 202
        await fetch(vault, hooks)
        calls = {call["call_id"] for call in await found(service)}
    assert calls == {name.format(start) for name, start in zip(named, starts, strict=True)}


async def test_a_tape_message_of_oreka(
    hooked: Service, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    for stage in ("start", "stop"):
        answer = await wire(hooked, vendors.tape(stage))
        assert answer.status == 200
        # At the start this word would stop the recording.
        assert answer.body == b"type=taperesponse success=true comment= deletetape=false"
    assert await rows(hooked.vault) == []
    first = await wire(hooked, vendors.tape())
    assert first.body.endswith(b"deletetape=false")
    await fetch(hooked.vault, hooks)
    assert host.asked == [("GET", "/audio/2026/11/24/10/20261124_000001_AAAA.wav", "")]
    again = await wire(hooked, vendors.tape())
    assert again.body == b"type=taperesponse success=true comment= deletetape=true"
    assert b"\n" not in again.body
    [call] = await found(hooked)
    assert (call["caller"], call["callee"], call["agent"]) == ("+358401234567", "101", "101")
    assert call["direction"] == "inbound"


async def test_a_tape_message_that_leads_out_of_its_folder_does_not(
    hooked: Service, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    await wire(hooked, vendors.tape(filename="../../secret/..\\x?y#z.wav", direction="unkn"))
    await fetch(hooked.vault, hooks)
    assert host.asked == [("GET", "/audio/secret/x%3Fy%23z.wav", "")]
    [call] = await found(hooked)
    assert call.get("direction") is None


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"timestamp": "1500000000"}, 400),
        ({"timestamp": ""}, 400),
        ({"timestamp": "soon"}, 400),
        ({"timestamp": "00000000000"}, 400),
        ({"type": "ping"}, 400),
        ({"recid": ""}, 400),
    ],
)
async def test_a_tape_message_that_can_never_be_taken_is_to_be_forgotten(
    hooked: Service, fields: dict[str, str], status: int
) -> None:
    assert (await wire(hooked, vendors.tape(**fields))).status == status


async def test_a_tape_message_of_a_recorder_whose_clock_is_ahead_comes_again(
    hooked: Service, hooks: dict[str, Webhook]
) -> None:
    ahead = int(datetime.now(UTC).timestamp()) + 600
    answer = await wire(hooked, vendors.tape(timestamp=str(ahead)))
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert await rows(hooked.vault) == []
    await hooked.turn_clock(timedelta(minutes=10))
    assert (await wire(hooked, vendors.tape(timestamp=str(ahead)))).status == 200
    assert await fetch(hooked.vault, hooks) == 1


async def test_a_recorder_from_elsewhere_is_not_believed(
    vault: Vault, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    elsewhere = replace(hooks["oreka"], senders=(ip_network("192.0.2.0/24"),))
    async with open_service(vault, webhooks={"oreka": elsewhere}) as service:
        assert (await wire(service, vendors.tape())).status == 401
        head, body = vendors.own(host)
        for name in ("oreka", "nobody"):
            answer = await wire(service, head.replace("/hooks/own", f"/hooks/{name}"), body)
            assert answer.status == 404
    assert await rows(vault) == []
