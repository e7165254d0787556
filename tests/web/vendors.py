"""Systems that tell of recordings, played on loopback: what they send, how they sign it, and what
they have to be asked with. The signatures are made by hand, after each vendor's own words.
"""

import base64
import hashlib
import hmac
import json
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app import webhooks
from archive.webhook import Webhook
from storage import fetching, notices
from storage.vault import Vault
from tests.roles import acting, connection
from tests.sounds import tone

AUDIO = tone(2, channels=2)
OUTSIDE = "https://archive.example.fi"
ACCOUNT = "ACa1b2c3d4e5f60718293a4b5c6d7e8f90"
TWILIO_TOKEN = "4d1f0c7b8a695e3f2d1c0b9a8f7e6d5c"
VONAGE_SECRET = "Rh7pQ2xV9mL4kT8wZ1nB6cY3sD5fG0jA"
JSON_SECRET = "a-secret-of-the-recorder"
TELNYX = Ed25519PrivateKey.generate()
VONAGE = rsa.generate_private_key(public_exponent=65537, key_size=2048)

Answer = web.StreamResponse | bytes | Awaitable[web.StreamResponse]


@cache
def started() -> datetime:
    """The same for every notice: one that is sent again says the same."""
    return (datetime.now(UTC) - timedelta(hours=1)).replace(microsecond=0)


@dataclass(slots=True)
class Vendor:
    """A host that has recordings. `answers` are given one after the other, the last for good."""

    port: int = 0
    answers: list[Callable[[web.Request], Answer]] = field(default_factory=list)
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        login = request.headers.get("Authorization", "")
        self.asked.append((request.method, request.raw_path, login))
        if not self.answers:
            return web.Response(body=AUDIO, content_type="audio/x-wav")
        answer = (self.answers.pop(0) if self.answers[1:] else self.answers[0])(request)
        answer = answer if isinstance(answer, web.StreamResponse | bytes) else await answer
        if isinstance(answer, bytes):
            return web.Response(body=answer, content_type="audio/x-wav")
        return answer


@asynccontextmanager
async def vendor() -> AsyncIterator[Vendor]:
    """One that listens."""
    found, app = Vendor(), web.Application()
    app.router.add_route("*", "/{path:.*}", found._answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.port = runner.addresses[0][1]
    try:
        yield found
    finally:
        await runner.cleanup()


def status(code: int, **headers: str) -> Callable[[web.Request], Answer]:
    return lambda _: web.Response(status=code, headers=headers)


CONFIG = """
[[webhook]]
name = "twilio"
kind = "twilio"
hosts = ["127.0.0.1:{port}"]
networks = ["127.0.0.0/8"]
http = true
delete_after = true
public_url = "{outside}"
account = "{account}"

[[webhook]]
name = "telnyx"
kind = "telnyx"
hosts = ["127.0.0.1:{port}"]
networks = ["127.0.0.0/8"]
http = true

[[webhook]]
name = "vonage"
kind = "vonage"
hosts = ["127.0.0.1:{port}"]
networks = ["127.0.0.0/8"]
http = true
account = "78d335fa-323d-0114-9c3d-d6f0d48968cf"

[[webhook]]
name = "own"
kind = "json"
source = "recorder"
hosts = ["127.0.0.1:{port}"]
networks = ["127.0.0.0/8"]
http = true
url = ["{{notice.download_url}}"]
id = ["{{notice.id}}"]
call_id = ["{{notice.call.id}}"]
call_type = ["{{notice.call.type}}", "other"]
started_at = ["{{notice.call.start}}"]
direction = ["{{notice.call.way}}"]
caller = ["{{notice.call.from}}"]
words = ["support=customer_service", "in=inbound"]
only = ["event=recording.ready"]

[[webhook]]
name = "signed"
kind = "json"
source = "recorder"
hosts = ["127.0.0.1:{port}"]
networks = ["127.0.0.0/8"]
http = true
signature_header = "X-Signature"
url = ["{{notice.url}}"]
id = ["{{notice.id}}"]
call_id = ["{{notice.id}}"]
call_type = ["other"]
started_at = ["{{notice.start}}"]

[[webhook]]
name = "vcon"
kind = "vcon"
hosts = ["127.0.0.1:{port}"]
networks = ["127.0.0.0/8"]
http = true
call_type = ["customer_service"]

[[webhook]]
name = "oreka"
kind = "oreka"
hosts = ["127.0.0.1:{port}"]
networks = ["127.0.0.0/8"]
http = true
delete_after = true
senders = ["127.0.0.1/32"]
call_type = ["customer_service"]
url = ["{url}/audio/{{notice.filename}}"]
"""


def environ() -> dict[str, str]:
    public = TELNYX.public_key().public_bytes_raw()
    private = VONAGE.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {
        "ARCHIVE_WEBHOOK_TWILIO_SECRET": TWILIO_TOKEN,
        "ARCHIVE_WEBHOOK_TELNYX_SECRET": base64.b64encode(public).decode(),
        "ARCHIVE_WEBHOOK_VONAGE_SECRET": VONAGE_SECRET,
        "ARCHIVE_WEBHOOK_VONAGE_FETCH_SECRET": private.decode(),
        "ARCHIVE_WEBHOOK_OWN_SECRET": JSON_SECRET,
        "ARCHIVE_WEBHOOK_OWN_FETCH_SECRET": "for-the-recorder",
        "ARCHIVE_WEBHOOK_SIGNED_SECRET": JSON_SECRET,
        "ARCHIVE_WEBHOOK_VCON_SECRET": JSON_SECRET,
    }


def config(at: Vendor) -> str:
    return CONFIG.format(port=at.port, url=at.url, outside=OUTSIDE, account=ACCOUNT)


def configured(at: Vendor) -> dict[str, Webhook]:
    """The webhooks of the configuration above, for this host."""
    tables = tomllib.loads(config(at))["webhook"]
    return webhooks.from_toml(Path("config.toml"), tables, environ())


async def fetch(vault: Vault, hooks: Mapping[str, Webhook]) -> int:
    """Work on what is due, as the service does; how many notices that were."""
    working = acting(vault, "ingest")
    jobs = await notices.claim(working, [*hooks], 100)
    for job in jobs:
        await fetching.work(working, hooks[job.hook], job)
    return len(jobs)


async def hurry(vault: Vault) -> None:
    """Let the time of every back-off, and of everybody who holds a notice, be over."""
    async with connection(vault.pool) as lent:
        await lent.execute("UPDATE notice SET due_at = archive_now() - interval '1 second'")


async def rows(vault: Vault) -> list[dict[str, Any]]:
    async with connection(vault.pool) as lent:
        return [dict(row) for row in await lent.fetch("SELECT * FROM notice ORDER BY asked_at")]


def sha1(path: str, fields: Mapping[str, str], outside: str = OUTSIDE) -> str:
    """Twilio: the whole address, then each field's name and value, in the order of the names."""
    said = outside + path + "".join(name + fields[name] for name in sorted(fields))
    digest = hmac.new(TWILIO_TOKEN.encode(), said.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


def twilio_fields(at: Vendor, number: int = 1, **more: str) -> dict[str, str]:
    recording = f"RE{number:032x}"
    return {
        "RecordingSource": "OutboundAPI",
        "RecordingTrack": "both",
        "RecordingSid": recording,
        "RecordingUrl": f"{at.url}/2010-04-01/Accounts/{ACCOUNT}/Recordings/{recording}",
        "RecordingStatus": "completed",
        "RecordingChannels": "2",
        "ErrorCode": "0",
        "CallSid": f"CA{number:032x}",
        "RecordingStartTime": format_datetime(started()),
        "AccountSid": ACCOUNT,
        "RecordingDuration": "2",
        **more,
    }


def twilio(
    at: Vendor, number: int = 1, query: str = "?call_type=customer_service", **more: str
) -> tuple[str, bytes]:
    """The head and body of a recording status callback, as Twilio's proxy sends them."""
    fields, path = twilio_fields(at, number, **more), f"/v1/hooks/twilio{query}"
    body = "&".join(f"{quote_plus(key)}={quote_plus(text)}" for key, text in fields.items())
    head = (
        f"POST {path} HTTP/1.1\n"
        "Content-Type: application/x-www-form-urlencoded; charset=UTF-8\n"
        f"Content-Length: {len(body)}\n"
        "Host: archive.example.fi\n"
        "User-Agent: TwilioProxy/1.1\n"
        f"X-Twilio-Signature: {sha1(path, fields)}\n"
        "I-Twilio-Idempotency-Token: 0e5c1b6e-1b2f-4a3e-8d62-5b1b6a0e6b7d\n"
        "Accept: */*\n"
    )
    return head, body.encode()


def telnyx(
    at: Vendor, number: int = 1, *, event: str = "call.recording.saved", age: int = 0
) -> tuple[str, bytes]:
    begun = started().isoformat(timespec="microseconds").replace("+00:00", "Z")
    document = {
        "data": {
            "event_type": event,
            "id": f"0ccc7b54-4df3-4bca-a65a-{number:012d}",
            "occurred_at": begun,
            "payload": {
                "call_control_id": "v2:T02llQxIyaRkhfRKxgAP8nY511EhFLizdvdUKJiSw8d6A9BborherQ",
                "call_leg_id": f"428c31b6-7af4-4bcb-b7f5-{number:012d}",
                "call_session_id": f"428c31b6-abf3-3bc1-b7f4-{number:012d}",
                "channels": "dual",
                "client_state": None,
                "connection_id": "1684641123236054244",
                "format": "wav",
                "from": "+358401234567",
                "public_recording_urls": {},
                "recording_ended_at": begun,
                "recording_id": f"8e6b1d48-0000-4f7e-9fd2-{number:012d}",
                "recording_started_at": begun,
                "recording_urls": {"wav": f"{at.url}/b/{number}.wav?X-Amz-Signature=a%2Fb%3D"},
                "to": "+358800123",
            },
            "record_type": "event",
        },
        "meta": {"attempt": 1, "delivered_to": f"{OUTSIDE}/v1/hooks/telnyx"},
    }
    body = json.dumps(document).encode()
    stamp = str(int(datetime.now(UTC).timestamp()) - age)
    shown = base64.b64encode(TELNYX.sign(stamp.encode() + b"|" + body)).decode()
    head = (
        "POST /v1/hooks/telnyx?call_type=fault_report HTTP/1.1\n"
        "Host: archive.example.fi\n"
        "Content-Type: application/json; charset=utf-8\n"
        f"telnyx-signature-ed25519: {shown}\n"
        f"telnyx-timestamp: {stamp}\n"
        "User-Agent: telnyx-webhooks\n"
        f"Content-Length: {len(body)}\n"
    )
    return head, body


def token(claims: Mapping[str, object], secret: str = VONAGE_SECRET, alg: str = "HS256") -> str:
    """A JWT, by hand."""

    def text(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    parts = {"alg": alg, "typ": "JWT"}, claims
    said = ".".join(text(json.dumps(each).encode()) for each in parts)
    digest = hmac.new(secret.encode(), said.encode(), hashlib.sha256).digest()
    return f"{said}.{text(digest) if alg == 'HS256' else ''}"


def vonage(
    at: Vendor, number: int = 1, *, age: int = 0, alg: str = "HS256", secret: str = VONAGE_SECRET
) -> tuple[str, bytes]:
    begun = started().isoformat().replace("+00:00", "Z")
    document = {
        "start_time": begun,
        "recording_url": f"{at.url}/v1/files/bbbbbbbb-aaaa-cccc-dddd-{number:012d}",
        "size": len(AUDIO),
        "recording_uuid": f"aaaaaaaa-bbbb-cccc-dddd-{number:012d}",
        "end_time": begun,
        "conversation_uuid": f"CON-aaaaaaaa-bbbb-cccc-dddd-{number:012d}",
        "timestamp": begun,
    }
    body = json.dumps(document).encode()
    claims = {
        "iat": int(datetime.now(UTC).timestamp()) - age,
        "jti": "c5ba8f24-1a14-4c10-bfdf-3fbe8ce511b5",
        "iss": "Vonage",
        "payload_hash": hashlib.sha256(body).hexdigest(),
        "api_key": "a1b2c3d4",
        "application_id": "78d335fa-323d-0114-9c3d-d6f0d48968cf",
    }
    head = (
        "POST /v1/hooks/vonage?call_type=contract HTTP/1.1\n"
        "Host: archive.example.fi\n"
        "Content-Type: application/json\n"
        f"Authorization: Bearer {token(claims, secret, alg)}\n"
        f"Content-Length: {len(body)}\n"
    )
    return head, body


def own(at: Vendor, *notices: Mapping[str, object], secret: str = JSON_SECRET) -> tuple[str, bytes]:
    """A system of one's own: one notice, or a list of them."""
    each = [
        {
            "event": "recording.ready",
            "id": 1,
            "download_url": f"{at.url}/own.wav",
            "call": {
                "id": "c-1",
                "type": "support",
                "start": started().timestamp(),
                "way": "in",
                "from": "040 123 4567",
            },
            **notice,
        }
        for notice in notices or ({},)
    ]
    body = json.dumps(each if each[1:] else each[0]).encode()
    head = (
        "POST /v1/hooks/own HTTP/1.1\n"
        "Host: archive.example.fi\n"
        "Content-Type: application/json\n"
        f"Authorization: Bearer {secret}\n"
        f"Content-Length: {len(body)}\n"
    )
    return head, body


def signed(at: Vendor, shown: Callable[[bytes], str], number: int = 1) -> tuple[str, bytes]:
    document = {"id": f"s-{number}", "url": f"{at.url}/s.wav", "start": started().isoformat()}
    body = json.dumps(document).encode()
    digest = hmac.new(JSON_SECRET.encode(), body, hashlib.sha256).digest()
    head = (
        "POST /v1/hooks/signed HTTP/1.1\n"
        "Host: archive.example.fi\n"
        "Content-Type: application/json\n"
        f"X-Signature: {shown(digest)}\n"
        f"Content-Length: {len(body)}\n"
    )
    return head, body


def tape(stage: str = "ready", number: int = 1, **more: str) -> str:
    """A tape message of orkaudio: HTTP/1.0, with nothing but a Host."""
    fields = {
        "type": "tape",
        "recid": f"20261124_{number:06d}_AAAA",
        "stage": stage,
        "captureport": "SIP-1",
        "timestamp": str(int(started().timestamp())),
        "filename": f"2026/11/24/10/20261124_{number:06d}_AAAA.wav",
        "localparty": "101",
        "localentrypoint": "",
        "remoteparty": "0401234567",
        "direction": "in",
        "duration": "2",
        "service": "orkaudio-host",
        "localip": "10.0.0.5",
        "remoteip": "10.0.0.9",
        "nativecallid": "1a2b3c@10.0.0.9",
        **more,
    }
    query = "&".join(f"{name}={quote_plus(text)}" for name, text in fields.items())
    return f"GET /orktrack/command?{query} HTTP/1.0\nHost: archive:8081\n"
