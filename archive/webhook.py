"""Notices of recordings that lie elsewhere: what a system says in one, and what comes of it.

A notice becomes a flat table, whatever its form was: `{notice.data.payload.recording_urls.wav}` of
JSON, `{notice.RecordingUrl}` of a form. From there the same templates as in a mapping make the
fields of the call, the address of the audio, and the name by which a notice that comes again is
known. Each system has such templates ready; the configuration puts its own in their place.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote

from archive import vcon
from archive.bounds import Network
from archive.mapping import FIELDS, REQUIRED, Place, Raw, Reading, Template
from archive.reach import Reach
from archive.recording import Direction

Notice = Mapping[str, str]

FORM = "application/x-www-form-urlencoded"

MOST = 100
"""Notices that one request may hold."""

_VALUES = 5000
_DEEPEST = 16

WANTED = ("url", "id", "delete_url")
"""What is made of a notice besides the fields of its call."""

_QUERY = {name: [f"{{query.{name}}}"] for name in FIELDS}
_VCON = ("call_id", "started_at", "caller", "callee", "agent", "queue")
_TELNYX = "notice.data.payload"

PRESETS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "twilio": {
        **_QUERY,
        "call_id": ["{query.call_id}", "{notice.CallSid}"],
        "started_at": ["{query.started_at}", "{notice.RecordingStartTime}"],
        "url": [
            "{notice.RecordingUrl}.wav?RequestedChannels={notice.RecordingChannels}",
            "{notice.RecordingUrl}.wav",
        ],
        "id": ["{notice.RecordingSid}"],
        "delete_url": ["{notice.RecordingUrl}"],
        "only": ["RecordingStatus=completed"],
    },
    "telnyx": {
        **_QUERY,
        "call_id": ["{query.call_id}", f"{{{_TELNYX}.call_session_id}}"],
        "started_at": ["{query.started_at}", f"{{{_TELNYX}.recording_started_at}}"],
        "caller": ["{query.caller}", f"{{{_TELNYX}.from}}"],
        "callee": ["{query.callee}", f"{{{_TELNYX}.to}}"],
        "url": [f"{{{_TELNYX}.recording_urls.wav}}", f"{{{_TELNYX}.recording_urls.mp3}}"],
        "id": [f"{{{_TELNYX}.recording_id}}", "{notice.data.id}"],
        "delete_url": [f"https://api.telnyx.com/v2/recordings/{{{_TELNYX}.recording_id}}"],
        "only": ["data.event_type=call.recording.saved"],
    },
    "vonage": {
        **_QUERY,
        "call_id": ["{query.call_id}", "{notice.conversation_uuid}"],
        "started_at": ["{query.started_at}", "{notice.start_time}"],
        "url": ["{notice.recording_url}"],
        "id": ["{notice.recording_uuid}"],
    },
    "json": {},
    "vcon": {
        **_QUERY,
        **{name: [f"{{query.{name}}}", f"{{notice.{name}}}"] for name in _VCON},
        "url": ["{notice.url}"],
        # An interaction may have several recordings, and the call_id is the interaction's.
        "id": ["{notice.call_id} {notice.url}", "{notice.url}"],
        "delete_url": ["{notice.url}"],
    },
    "oreka": {
        **{name: [] for name in FIELDS},
        "call_id": ["{notice.recid}"],
        "started_at": ["{notice.timestamp}"],
        "direction": ["{notice.direction}"],
        "caller": ["{notice.caller}"],
        "callee": ["{notice.callee}"],
        "agent": ["{notice.localparty}"],
        "id": ["{notice.recid}"],
        "only": ["stage=ready"],
        "words": ["in=inbound", "out=outbound"],
    },
}
"""By kind, what the configuration need not say."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a notice tells of one recording: its call's raw fields, where it lies, where it is to be
    deleted afterwards (or ""), its name, and its SHA-512 in hex where that is told (or "").
    """

    fields: dict[str, object]
    url: str
    delete_url: str
    id: str
    sha512: str


@dataclass(frozen=True, slots=True)
class Webhook:
    """One `[[webhook]]` of the configuration.

    `secret` is what notices are verified by, `account` and `fetch_secret` are what recordings are
    fetched with. `signature_header` has the HMAC of a notice; without one the secret itself is
    shown. `senders` are the networks that notices may come from, if only some may.
    """

    name: str
    kind: str
    source: str
    reading: Reading
    wanted: Mapping[str, tuple[Template, ...]]
    only: tuple[tuple[str, str], ...]
    reach: Reach
    delete_after: bool = False
    public_url: str = ""
    account: str = ""
    secret: str = field(default="", repr=False)
    fetch_secret: str = field(default="", repr=False)
    signature_header: str = ""
    senders: tuple[Network, ...] | None = None

    @property
    def actor(self) -> str:
        """How the ledger names it."""
        return f"webhook-{self.name}"

    def concerns(self, notice: Notice) -> bool:
        """Whether it is of a recording that is ready; of others nothing is wanted."""
        return all(notice.get(name) == value for name, value in self.only)

    def find(self, notice: Notice, query: Mapping[str, str | list[str]]) -> Found:
        """What a notice tells. Raises ValueError naming what it lacks."""
        raw: Raw = {"notice": dict(notice), "query": query}
        fields = self.reading.read(raw) or {}
        if fields.get("direction") not in (None, *Direction):
            del fields["direction"]  # nobody corrects a notice: one odd word must not lose the call
        made = {name: _made(self.wanted[name], raw) for name in WANTED}
        if not made["url"] or not made["id"]:
            raise ValueError("names no " + ("recording" if made["url"] else "address of its audio"))
        delete_url = made["delete_url"] if self.delete_after else ""
        return Found(fields, made["url"], delete_url, made["id"], notice.get("sha512", ""))


def _made(templates: Sequence[Template], raw: Raw) -> str:
    """The first text that can be made; what is put behind an address of ours stays behind it."""
    for template in templates:
        behind = raw if isinstance(template.parts[0], Place) else _quoted(raw)
        if isinstance(text := template.fill(behind), str):
            return text
    return ""


def _quoted(raw: Raw) -> Raw:
    return {
        kind: {name: _segments(value) for name, value in values.items() if isinstance(value, str)}
        for kind, values in raw.items()
    }


def _segments(text: str) -> str:
    """As it stands in a path, without steps up or aside."""
    parts = text.replace("\\", "/").split("/")
    return "/".join(quote(part, safe="") for part in parts if part not in ("", ".", ".."))


def read(kind: str, body: bytes, media_type: str = "") -> list[dict[str, str]]:
    """The notices in the body of a request; several stand in a list. Raises ValueError."""
    if kind == "twilio" or media_type == FORM:
        return [dict(form(body))]
    if kind == "vcon":
        told = vcon.read(body)
        if told.body is not None:
            raise ValueError("holds the audio itself: POST it to /v1/recordings")
        sha512 = {"sha512": told.sha512.hex()} if told.sha512 else {}
        return [{**told.fields, "url": told.url, **sha512}]
    try:
        document = json.loads(body, parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    each = document if isinstance(document, list) else [document]
    if not each or len(each) > MOST or not all(isinstance(one, dict) for one in each):
        raise ValueError(f"is no JSON object, nor a list of 1 to {MOST}")
    return [_flat(one) for one in each]


def form(body: bytes) -> list[tuple[str, str]]:
    """The fields of a form, each as often as it was sent. Raises ValueError."""
    return parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=200)


def _flat(document: object) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in _leaves(document, "", 0):
        found[name] = value
        if len(found) > _VALUES:
            raise ValueError("has too many values")
    return found


def _leaves(value: object, name: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > _DEEPEST:
        raise ValueError("is nested too deeply")
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key), depth + 1)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{name}.{number}", depth + 1)
    elif isinstance(value, bool):
        yield name, str(value).lower()
    elif isinstance(value, str):
        yield name, value


def tape(query: Mapping[str, str]) -> dict[str, str]:
    """A tape message of Oreka: its parties are the local and the remote one, whoever rang."""
    local, remote = query.get("localparty", ""), query.get("remoteparty", "")
    caller, callee = (local, remote) if query.get("direction") == "out" else (remote, local)
    return {**query, "caller": caller, "callee": callee}


def needed(kind: str) -> tuple[str, ...]:
    """The keys that have no preset and have to be configured."""
    return tuple(key for key in (*REQUIRED, "url", "id") if not PRESETS[kind].get(key))
