"""A call as a vCon, the conversation container of the IETF: its one recording read, and written.

The format still moves (0.3 to 0.5), so both spellings of what was renamed are read, and all else is
left alone. The audio comes beside it, and is held against its `content_hash` if it has one. What is
written is of the 0.4 drafts, and what is written can be read.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from archive.recording import Call, Direction, Recording

MEDIA_TYPES = frozenset({"application/vcon", "application/vcon+json"})


@dataclass(frozen=True, slots=True)
class Conversation:
    """The raw fields of the call, the SHA-512 of its audio if that is told, and where the audio is:
    at an address, within the vCon, or beside it ("" and None).
    """

    fields: dict[str, str]
    sha512: bytes | None
    url: str = ""
    body: bytes | None = field(default=None, repr=False)


def read(document: bytes) -> Conversation:
    """Read a vCon that is neither signed nor encrypted. Raises ValueError for anything else.

    The call_id is the contact centre's own (`interaction_id`), else the vCon's `uuid`. Who began
    the dialog is the caller, the next of its parties the callee.
    """
    try:
        vcon = json.loads(document)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(vcon, dict) or not isinstance(vcon.get("dialog"), list):
        raise ValueError("is no vCon, or a signed or encrypted one")  # noqa: TRY004 - theirs
    recordings = [one for one in vcon["dialog"] if _text(one, "type") == "recording"]
    if len(recordings) != 1:
        raise ValueError("must have one dialog that is a recording; send each by itself")
    dialog = recordings[0]
    return Conversation(_fields(vcon, dialog), _sha512(dialog), _text(dialog, "url"), _body(dialog))


def _body(dialog: dict[str, Any]) -> bytes | None:
    """The audio itself, if it is within."""
    if not (text := _text(dialog, "body")):
        return None
    if _text(dialog, "encoding") != "base64url":
        raise ValueError("holds audio in another encoding than base64url")
    try:
        padded = text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("holds audio that is no base64url") from None


def _fields(vcon: dict[str, Any], dialog: dict[str, Any]) -> dict[str, str]:
    parties = vcon.get("parties")
    everybody = parties if isinstance(parties, list) else []
    there = [each for each in _numbers(dialog.get("parties")) if each < len(everybody)]
    first = dialog.get("originator", there[0] if there else 0)
    caller = everybody[first] if isinstance(first, int) and 0 <= first < len(everybody) else None
    others = [everybody[each] for each in there if each != first]
    agent = next((each for each in everybody if _text(each, "role") == "agent"), None)
    found = {
        "call_id": _text(dialog, "interaction_id") or _text(vcon, "uuid"),
        "started_at": _text(dialog, "start"),
        "caller": _address(caller),
        "callee": _address(others[0] if others else None),
        "agent": _text(agent, "name") or _address(agent),
        "queue": _text(dialog, "skill"),
    }
    return {name: text for name, text in found.items() if text}


def _numbers(parties: object) -> list[int]:
    """The parties of a dialog, one for each channel; where two are mixed, a list within."""
    found: list[int] = []
    for each in parties if isinstance(parties, list) else [parties]:
        for one in each if isinstance(each, list) else [each]:
            if isinstance(one, int) and not isinstance(one, bool) and one >= 0 and one not in found:
                found.append(one)
    return found


def _address(party: object) -> str:
    return _text(party, "tel") or _text(party, "sip") or _text(party, "mailto")


def _sha512(dialog: dict[str, Any]) -> bytes | None:
    """`content_hash` (one, or a list), or what it was called before: `alg` and `signature`."""
    hashes = dialog.get("content_hash")
    for each in hashes if isinstance(hashes, list) else [hashes]:
        if isinstance(each, str) and each.lower().startswith("sha512-"):
            return _decoded(each[7:])
    if _text(dialog, "alg").upper() in ("SHA-512", "SHA512") and _text(dialog, "signature"):
        return _decoded(_text(dialog, "signature"))
    return None


def _decoded(text: str) -> bytes:
    try:
        value = base64.urlsafe_b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))
    except (binascii.Error, ValueError):
        value = b""
    if len(value) != 64:
        raise ValueError("has a content_hash that is none")
    return value


def _text(value: object, name: str) -> str:
    text = value.get(name) if isinstance(value, dict) else None
    return text.strip() if isinstance(text, str) else ""


def write(recording: Recording, made_at: datetime, audio: Mapping[str, object]) -> dict[str, Any]:
    """The vCon of a recording whose audio lies beside it; `audio` is what `beside` gave.

    Which party is on which channel nobody told the archive, so that each may be on any of them.
    """
    call = recording.call
    dialog = {
        "type": "recording",
        "start": call.started_at.isoformat(),
        "duration": recording.audio.duration,
        "originator": 0,
        "parties": [[0, 1]] * recording.audio.channels,
        **audio,
        "interaction_id": call.call_id,
        "interaction_type": call.call_type,
        **({"skill": call.queue} if call.queue else {}),
    }
    known = {"id": str(recording.id), "source": recording.source, "direction": call.direction}
    known |= {"customer": call.customer, "contract": call.contract}
    return {
        "vcon": "0.4.0",
        "uuid": str(recording.id),
        "created_at": made_at.isoformat(),
        "parties": _parties(call),
        "dialog": [dialog],
        "attachments": [
            {"type": "call-archive", "encoding": "json", "body": json.dumps(known, sort_keys=True)}
        ],
    }


def beside(name: str, media_type: str, sha512: bytes) -> dict[str, object]:
    """How a dialog names audio that lies in a file beside the vCon."""
    digest = base64.urlsafe_b64encode(sha512).decode().rstrip("=")
    return {"filename": name, "mediatype": media_type, "content_hash": f"sha512-{digest}"}


def _parties(call: Call) -> list[dict[str, str]]:
    """Caller and callee, and the agent as whichever of the two the direction tells."""
    parties = [{"tel": number} if number else {} for number in (call.caller, call.callee)]
    if call.agent:
        side = {Direction.OUTBOUND: 0, Direction.INBOUND: 1}.get(
            call.direction or Direction.INTERNAL
        )
        if side is None:
            parties.append({})
        parties[-1 if side is None else side] |= {"name": call.agent, "role": "agent"}
    return parties
