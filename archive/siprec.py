"""What a SIPREC recorder knows of a call: the recording metadata of RFC 7865, read tolerantly.

Recorders differ in all that the RFC leaves open and in some that it does not: prefixes, the order
of elements, times without a colon in their offset, streams that nobody is said to send, headers of
the call in an extension. So elements are known by their names alone, wherever they stand. A
document type is refused, and with it every entity.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

MEDIA_TYPE = "application/rs-metadata+xml"

_DEEPEST = 32


@dataclass(slots=True)
class _Element:
    """An element by its name without a prefix."""

    name: str
    attributes: dict[str, str]
    text: str = ""
    inner: list["_Element"] = field(default_factory=list)

    def all(self, name: str) -> Iterator["_Element"]:
        """The elements of this name within, in their order."""
        for each in self.inner:
            if each.name == name:
                yield each
            yield from each.all(name)

    def texts(self, *names: str) -> Iterator[str]:
        """The texts of elements of these names, those of the first name first."""
        for name in names:
            yield from (each.text.strip() for each in self.all(name) if each.text.strip())


def fields(document: bytes) -> dict[str, str]:
    """The raw fields of the call. Raises ValueError for what is no recording metadata.

    The call_id is that of the call where an extension tells it, else the SIP session's, else the
    recording session's. Who is named first rang; the RFC has no word for it.
    """
    recording = _parse(document)
    if recording.name != "recording":
        raise ValueError("is no recording metadata of RFC 7865")
    session = next(recording.all("session"), _Element("", {}))
    sip = next(session.texts("sipSessionID"), "").partition(";")[0]
    named = [each for each in map(_address, recording.all("participant")) if each]
    found = {
        "call_id": next(recording.texts("callid"), sip) or session.attributes.get("session_id", ""),
        "started_at": _start(recording),
        "caller": next(recording.texts("fromhdr"), "") or "".join(named[:1]),
        "callee": next(recording.texts("tohdr"), "") or "".join(named[1:2]),
    }
    return {name: text for name, text in found.items() if text}


def _start(recording: _Element) -> str:
    """When the session began, or else when the first one joined it."""
    begun = list(recording.texts("start-time")) or sorted(recording.texts("associate-time"))
    return begun[0] if begun else ""


def _address(participant: _Element) -> str:
    # `aor` is an attribute in the RFC, and an element or missing elsewhere.
    for each in participant.all("nameID"):
        if address := each.attributes.get("aor", "").strip():
            return address
    return next(participant.texts("aor", "name"), "")


def _parse(document: bytes) -> _Element:
    root = _Element("", {})
    stack = [root]

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(stack) > _DEEPEST:
            raise ValueError("is nested too deeply")
        short = {key.rpartition(":")[2]: value for key, value in attributes.items()}
        element = _Element(name.rpartition(":")[2], short)
        stack[-1].inner.append(element)
        stack.append(element)

    def text(piece: str) -> None:
        stack[-1].text += piece

    def refuse(*_: object) -> None:
        raise ValueError("has a document type, which is not read")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: stack.pop()
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(document, True)
    except (expat.ExpatError, LookupError):  # the second for an encoding that is none
        raise ValueError("is not XML") from None
    return root.inner[0]
