"""What the name of a recording's file says of its call.

FreePBX, and all that is built on it, writes `type-destination-from-YYYYMMDD-HHMMSS-UNIQUEID.wav`:
the time in it is local and names no zone, so that the call's start is taken from the unique id,
which begins with the seconds since 1970. A name that is such an id alone is Asterisk's own. For
other systems a pattern is given, whose groups are named like the fields of a call.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from archive.recording import is_text

_UNIQUE = r"(?:[A-Za-z][\w-]*-)?(?P<epoch>\d{9,11})\.\d+"
_UNIQUE_ID = re.compile(_UNIQUE, re.ASCII)

_FREEPBX = re.compile(
    rf"(?P<type>[a-z]+)-(?P<middle>.+)-\d{{8}}-\d{{6}}-(?P<call_id>{_UNIQUE})", re.ASCII | re.DOTALL
)
_KINDS = {"in": "inbound", "out": "outbound", "internal": "internal"}
_QUEUE = "q"

PRESETS = {
    # 3CX counts anew after a restart: the number in brackets names a call only with the time.
    "3cx": (
        r".*_(?P<caller>[^-_]+)-(?P<callee>[^_]+)"
        r"_(?P<call_id>(?P<started_at>\d{14})\(\w+\))"
    ),
    "stem": r"(?P<call_id>.+)",
}
"""Patterns with a name; `freepbx` is none of them: its names say more than a pattern reads."""

FREEPBX = "freepbx"

AUDIO = frozenset(
    {"wav", "wav16", "wav49", "mp3", "ogg", "oga", "opus", "flac", "m4a", "mp4", "webm", "amr"}
)
"""Endings of files whose bytes say what they are."""

HEADERLESS = {
    "alaw": "audio/PCMA;rate=8000",
    "al": "audio/PCMA;rate=8000",
    "ulaw": "audio/PCMU;rate=8000",
    "ul": "audio/PCMU;rate=8000",
    "pcm": "audio/PCMU;rate=8000",
    "gsm": "audio/GSM;rate=8000",
    "g729": "audio/G729;rate=8000",
}
"""Endings of headerless audio as Asterisk writes it. Its `.sln` and `.raw` are not here: they are
little-endian, and audio/L16 is not."""

OCTETS = "application/octet-stream"


def media_type(name: str) -> str | None:
    """The Content-Type to send a file of this name with; None when no audio is called so."""
    ending = name.rpartition(".")[2].lower()
    return HEADERLESS.get(ending) or (OCTETS if ending in AUDIO else None)


def stem(name: str) -> str:
    """A file's name without its ending."""
    return name.rpartition(".")[0] or name


def said(names: str, name: str) -> Mapping[str, str]:
    """What the name of a file says, as raw fields of a call.

    `names` is `freepbx`, a preset or a pattern. Empty when the name is of another form.
    """
    text = stem(name)
    if names == FREEPBX:
        return _freepbx(text)
    found = re.fullmatch(PRESETS.get(names, names), text, re.DOTALL)
    return _texts(found.groupdict()) if found else {}


def started(unique_id: str) -> str | None:
    """When a channel of Asterisk came to be, out of its unique id; None for what is none."""
    found = _UNIQUE_ID.fullmatch(unique_id)
    return datetime.fromtimestamp(int(found["epoch"]), UTC).isoformat() if found else None


def _freepbx(text: str) -> Mapping[str, str]:
    found = _FREEPBX.fullmatch(text)
    unique = found["call_id"] if found else text
    start = started(unique)
    if start is None:
        return {}
    fields: dict[str, str | None] = {"call_id": unique, "started_at": start}
    if found:
        fields |= {"direction": _KINDS.get(found["type"]), **_ends(found["type"], found["middle"])}
    return _texts(fields)


def _ends(kind: str, middle: str) -> Mapping[str, str | None]:
    """Who rang whom. With another number of parts a guess would be a wrong number."""
    ends = middle.split("-")
    if len(ends) != 2:
        return {}
    to, by = (None if end == "unknown" else end for end in ends)
    return {"queue" if kind == _QUEUE else "callee": to, "caller": by}


def _texts(fields: Mapping[str, str | None]) -> Mapping[str, str]:
    """What is there and can be sent: a caller chooses the name that the telephone shows."""
    return {name: text for name, text in fields.items() if text and is_text(text)}
