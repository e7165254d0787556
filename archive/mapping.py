"""How what a telephony system says of a call becomes the fields of a `Call`.

A system writes its metadata where it can: into the address, the query, headers, the tags of the
file. A mapping names for each field the templates that are tried in turn, and the first one whose
places all have a value is taken:

    caller = ["{query.caller}", "{header.X-Recording-Tag}"]    call_type = ["{path.type}", "other"]

What is in the audio itself is known only when the audio is here; `read` says so where a field
depends on it. Nothing is judged here: `Call.from_fields` names what is wrong with the outcome.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import unquote

from archive.recording import TEXT_FIELDS

REQUIRED = ("call_id", "call_type", "started_at")
FIELDS = (*REQUIRED, "direction", *TEXT_FIELDS)

EARLY = frozenset({"path", "query", "header", "metadata", "stream", "notice", "sidecar"})
"""Kinds of places that a request, or an object in a bucket, shows before its body."""

LATE = frozenset({"tag", "audio"})
"""Kinds of places that only the audio tells of: its tags, and when it must have begun."""

Raw = Mapping[str, Mapping[str, str | list[str]]]
"""What a system said: kind of place → name → value; a list for what was said more than once."""

LONGEST_PATH = 2048
"""Characters of an address that is read."""

_PLACE = re.compile(r"\{([a-z]+)\.([^{}]+)\}")
_NAME = re.compile(r"\{([a-z_]+)\}")
_CASELESS = frozenset({"header", "metadata", "tag"})
_WORDED = ("call_type", "direction")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"(\d{9,10})(\.\d{1,9})?|(\d{11}|\d{13}|\d{16})", re.ASCII)
_DATED = re.compile(r"[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d (?:[+-]\d{4}|GMT)")
_GREGORIAN = 62_167_219_200
"""Seconds from the year 0 to 1970; Erlang counts from there, with eleven digits."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: `{header.X-Recording-Kind}` is the kind `header` and a name."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Template:
    """A text with places in it."""

    parts: tuple[str | Place, ...]

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Read `{query.a}/{header.B}` or a plain text. Raises ValueError."""
        parts: list[str | Place] = []
        position = 0
        for match in _PLACE.finditer(text):
            kind, name = match.groups()
            if kind not in EARLY | LATE:
                raise ValueError(f"a place is one of {', '.join(sorted(EARLY | LATE))}")
            parts += [text[position : match.start()]] if match.start() > position else []
            parts.append(Place(kind, name.lower() if kind in _CASELESS else name))
            position = match.end()
        parts += [text[position:]] if position < len(text) else []
        if not parts or any("{" in part or "}" in part for part in parts if isinstance(part, str)):
            raise ValueError("a template is written like {query.name}, or as plain text")
        return cls(tuple(parts))

    @property
    def late(self) -> bool:
        """Whether it depends on the audio."""
        return any(isinstance(part, Place) and part.kind in LATE for part in self.parts)

    def fill(self, raw: Raw) -> str | list[str] | None:
        """The text; None without one of its values, a list for a value that was said twice."""
        found = ""
        for part in self.parts:
            value = part if isinstance(part, str) else raw.get(part.kind, {}).get(part.name)
            if not value:
                return None
            if isinstance(value, list):
                return value
            found += value
        return found


@dataclass(frozen=True, slots=True)
class Reading:
    """The mapping of one way in: templates by field, the forms of its addresses, and its words.

    `sidecar`: what a file beside the audio is called (`archive.sidecar`), "" where there is none.
    """

    fields: Mapping[str, tuple[Template, ...]]
    paths: tuple[re.Pattern[str], ...]
    words: Mapping[str, str]
    sidecar: str = ""

    @classmethod
    def from_texts(
        cls,
        fields: Mapping[str, Sequence[str]],
        paths: Sequence[str] = (),
        words: Sequence[str] = (),
        sidecar: str = "",
    ) -> "Reading":
        """Read what stands in the configuration. Raises ValueError."""
        return cls(
            {name: tuple(map(Template.parse, texts)) for name, texts in fields.items()},
            tuple(map(path_form, paths)),
            dict(map(_word, words)),
            sidecar,
        )

    def otherwise(self, name: str, text: str) -> "Reading":
        """The same, with a text for a field that nothing else is said of."""
        templates = (*self.fields[name], Template((text,)))
        return replace(self, fields={**self.fields, name: templates})

    def path(self, path: str) -> dict[str, str | list[str]] | None:
        """What an address says, by the first form that it has; None if it has none of them.

        `path` is percent-encoded, so that a `/` within a value is none between two. One that is
        longer than any call needs has no form: comparing costs the more the longer it is.
        """
        for form in self.paths if len(path) <= LONGEST_PATH else ():
            if match := form.fullmatch(path):
                return {name: unquote(value) for name, value in match.groupdict().items()}
        return None

    def read(self, raw: Raw) -> dict[str, object] | None:
        """The raw fields of the call; None where they depend on the audio, which is not here yet
        (`raw` has no kind `tag`).
        """
        found: dict[str, object] = {}
        for name, templates in self.fields.items():
            for template in templates:
                if template.late and "tag" not in raw:
                    return None
                if (value := template.fill(raw)) is not None:
                    found[name] = value if isinstance(value, list) else self._told(name, value)
                    break
        return found

    def _told(self, name: str, value: str) -> str:
        if name == "started_at":
            return instant(value)
        return self.words.get(value.strip().casefold(), value) if name in _WORDED else value


def path_form(text: str) -> re.Pattern[str]:
    """Read `**/call_recording_{call_id}.{ext}`: `**` is any number of segments, a name one part of
    a segment, and the longest that can be. Raises ValueError.
    """
    pattern = ""
    for number, segment in enumerate(text.split("/")):
        between = "/" if number and not pattern.endswith(")*") else ""
        if segment == "**":
            pattern += between + "(?:[^/]+/)*"
            continue
        pieces = _NAME.split(segment)
        if not segment or any(set(piece) & set("{}*") for piece in pieces[::2]):
            raise ValueError("a path is written like {call_type}/{call_id}.{ext}")
        pattern += between + "".join(
            f"(?P<{piece}>[^/]+)" if index % 2 else re.escape(piece)
            for index, piece in enumerate(pieces)
        )
    try:
        return re.compile(pattern)
    except re.error:
        raise ValueError("a path names each of its parts once") from None


def instant(text: str) -> str:
    """A time as RFC 3339, where it is a count of seconds since 1970 (with a fraction), of milli- or
    microseconds, or Erlang's since the year 0, or dated as a letter is; any other text as it is.
    """
    if _DATED.fullmatch(text.strip()):
        with suppress(ValueError):
            return parsedate_to_datetime(text).isoformat()
    match = _NUMBER.fullmatch(text.strip())
    if not match:
        return text
    seconds, fraction, whole = match.groups()
    if seconds:
        micro = int(seconds) * 10**6 + int((fraction or ".")[1:7].ljust(6, "0"))
    elif len(whole) == 11:
        micro = (int(whole) - _GREGORIAN) * 10**6
    else:
        micro = int(whole) * (1000 if len(whole) == 13 else 1)
    with suppress(OverflowError):  # Erlang's may lie before the first year that can be told
        return (_EPOCH + timedelta(microseconds=micro)).isoformat()
    return text


def pairs(text: str) -> dict[str, str]:
    """What stands in a text like `caller:+358401234567|queue:faults`, by its name in small letters.

    The value is all behind the first colon: addresses hold some too. What is no pair is left out.
    """
    found = {}
    for pair in text.split("|"):
        name, colon, value = pair.partition(":")
        if colon and name.strip():
            found[name.strip().lower()] = value.strip()
    return found


def _word(text: str) -> tuple[str, str]:
    theirs, sign, ours = text.partition("=")
    if not (sign and theirs.strip() and ours.strip()):
        raise ValueError("words are written like telemarketing=direct_marketing")
    return theirs.strip().casefold(), ours.strip()
