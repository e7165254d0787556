"""Recordings as the doors show them: JSON, and the headers that go with it.

Times are RFC 3339 with the archive's own offset, durations seconds, sizes bytes.
"""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from uuid import UUID

from aiohttp import web

from archive import retention
from archive.errors import NotFoundError
from archive.recording import TEXT_FIELDS, Recording
from archive.retention import Policy

NO_STORE = {"Cache-Control": "private, no-store"}


def receipt(recording: Recording, policy: Policy) -> dict[str, object]:
    """All that an uploader ever sees of a recording."""
    call, audio = recording.call, recording.audio
    return {
        "id": str(recording.id),
        "call_id": call.call_id,
        "source": recording.source,
        "call_type": call.call_type,
        "started_at": _time(call.started_at, policy),
        "expires_at": _time(call.expiry.at, policy),
        "received_at": _time(recording.received_at, policy),
        "duration": audio.duration,
        "bytes": audio.bytes,
        "sha256": audio.sha256,
    }


def recording(recording: Recording, policy: Policy) -> dict[str, object]:
    """All that a reader sees of a recording."""
    call, audio = recording.call, recording.audio
    expiry = call.expiry
    return {
        **receipt(recording, policy),
        "direction": call.direction,
        **{field: getattr(call, field) for field in TEXT_FIELDS},
        "channels": audio.channels,
        "sample_rate": audio.sample_rate,
        "codec": audio.codec,
        "container": audio.container,
        "flaws": list(audio.flaws),
        "redacted": recording.redacted,
        "why": retention.explain(call.started_at, expiry.at, expiry.rule, policy.zone),
    }


def sunset(recording: Recording) -> str:
    """The expiry as an HTTP date (RFC 8594): from then on the address does not answer."""
    return http_date(recording.call.expiry.at)


def http_date(moment: datetime) -> str:
    """An instant, to the second, as headers tell it."""
    return format_datetime(moment.astimezone(UTC).replace(microsecond=0), usegmt=True)


def repr_digest(recording: Recording) -> str:
    """The SHA-256 of the audio as sent, as a structured field (RFC 9530)."""
    value = base64.b64encode(bytes.fromhex(recording.audio.sha256)).decode()
    return f"sha-256=:{value}:"


def address(base: str, recording: Recording) -> str:
    """Where a recording is found, on the retrieval door."""
    return f"{base}/v1/recordings/{recording.id}"


def identifier(request: web.Request) -> UUID:
    """The id in the path. What is no id is not found, like an id that never was."""
    text = request.match_info["id"]
    try:
        found = UUID(text)
    except ValueError:
        found = None
    if found is None or str(found) != text.lower():
        raise NotFoundError("There is no recording of this id that you may know of.")
    return found


def data(body: Mapping[str, object], status: int = 200, **headers: str) -> web.Response:
    """A JSON answer that no cache keeps."""
    return web.json_response(body, status=status, headers={**NO_STORE, **headers})


def _time(moment: datetime, policy: Policy) -> str:
    return policy.local(moment).isoformat()
