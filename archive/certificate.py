"""The certificate of an erasure: what the ledger tells of one recording, and that it does so.

It is one JSON object. Its `entries` are those of the ledger: `stored`, which said when the
recording is due; `erased`; and, once the day is over, `day.closed`, when the day's key was
destroyed. Of an export, a copy for who asked for it, they are `export.asked`, `export.erased` and
`day.closed`. Each has its place, and the proof that it is in the tree whose signed root stands in
`checkpoint`. Nothing in it is personal, so it outlives the recording.

What it proves is that the archive wrote this down, at that place, and has not changed it since the
checkpoint. That bytes and keys are gone is what the archive says that it saw: docs/proof.md.
"""

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum

from archive import merkle
from archive.ledger import Entry, canonical
from archive.merkle import ProofError
from archive.note import Checkpoint, Note
from archive.retention import is_day_of, last_due

FORMAT = "call-archive certificate 1"
BEGIN = ("stored", "rebuilt")
"""The acts by which a recording comes to be in the archive."""

GRANTED = "erasure.granted"
"""The act by which a recording is erased before its time: two people, of whom it names the keys."""

ASKED, EXPORT_ERASED = "export.asked", "export.erased"
"""The acts by which an export begins and ends."""

NIGHT = "night.done"
"""The act by which a night tells what it did."""

Check = Callable[[Note], Checkpoint]
"""Gives the checkpoint of a note that is signed as it should be; NoteError for any other."""


class CertificateError(ValueError):
    """This is not a certificate, or it does not show what it should; the message says why."""


class NoJsonError(CertificateError):
    """This is no JSON at all."""


class Step(StrEnum):
    """What is checked of a certificate, in this order; each entry is proven by itself."""

    SIGNED = "signed"
    PROVEN = "proven"
    WHOLE = "whole"
    SAME = "same"
    ORDER = "order"
    DUE = "due"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Proven:
    """An entry with the proof that it is in the tree of the checkpoint."""

    entry: Entry
    proof: Sequence[bytes]

    def as_json(self) -> dict[str, object]:
        """As it stands in a certificate."""
        return {
            "position": self.entry.position,
            "entry": json.loads(self.entry.text),
            "proof": [base64.b64encode(each).decode() for each in self.proof],
        }

    @classmethod
    def from_json(cls, raw: object) -> "Proven":
        """Read what `as_json` gave. Raises CertificateError."""
        try:
            if not isinstance(raw, Mapping) or type(raw["position"]) is not int:
                raise CertificateError("An entry of the certificate has no position.")
            proof = [base64.b64decode(each, validate=True) for each in raw["proof"]]
            return cls(Entry.parse(raw["position"], canonical(raw["entry"])), proof)
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise CertificateError(f"An entry of the certificate cannot be read: {error}") from None

    def check(self, checkpoint: Checkpoint) -> None:
        """Raise CertificateError unless the entry is in the tree of this checkpoint."""
        leaf, place = merkle.leaf_hash(self.entry.text), self.entry.position
        try:
            merkle.check_inclusion(leaf, place, checkpoint.size, self.proof, checkpoint.root)
        except ProofError as error:
            act = self.entry.act
            raise CertificateError(f"The entry `{act}` is not proven: {error}.") from None


@dataclass(frozen=True, slots=True)
class Certificate:
    """The entries of the ledger about one thing, proven under one checkpoint."""

    entries: Sequence[Proven]
    checkpoint: Note

    def as_json(self) -> dict[str, object]:
        """The file."""
        return {
            "certificate": FORMAT,
            "entries": [proven.as_json() for proven in self.entries],
            "checkpoint": str(self.checkpoint),
        }

    @classmethod
    def parse(cls, content: bytes) -> "Certificate":
        """Read a file. Raises CertificateError."""
        try:
            raw = json.loads(content.decode())
        except (ValueError, RecursionError) as error:
            raise NoJsonError(f"This is not a certificate: {error}") from None
        try:
            if not isinstance(raw, dict) or raw["certificate"] != FORMAT:
                raise CertificateError("This is not a certificate of this archive.")
            entries = [Proven.from_json(each) for each in raw["entries"]]
            return cls(entries, Note.parse(raw["checkpoint"]))
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise CertificateError(f"This is not a certificate: {error}") from None

    def entry(self, *acts: str) -> Entry | None:
        """The first entry of one of these acts."""
        return next((each.entry for each in self.entries if each.entry.act in acts), None)

    @property
    def of_night(self) -> bool:
        """Whether it is the account of nights, and not of an erasure."""
        return bool(self.entries) and all(each.entry.act == NIGHT for each in self.entries)

    def check(self, signed: Check) -> Checkpoint:
        """Check that every entry is in the signed tree, at its place.

        Raises CertificateError; NoteError if the checkpoint is not signed by the right key.
        """
        checkpoint = signed(self.checkpoint)
        for proven in self.entries:
            proven.check(checkpoint)
        return checkpoint


@dataclass(frozen=True, slots=True)
class Erasure:
    """What the certificate of one recording shows; `closed_at` is when the day's key went.

    `early`: erased before it was due, by the rule that two people may grant a person's request.
    """

    recording: str
    rule: str
    early: bool
    due: datetime
    stored_at: datetime
    erased_at: datetime
    closed_at: datetime | None


@dataclass(frozen=True, slots=True)
class ExportErasure:
    """What the certificate of one export shows: a copy of some recordings, to be over by `due`.

    `why` it was over is a word of `archive.export.Why`.
    """

    export: str
    recordings: int
    why: str
    due: datetime
    asked_at: datetime
    erased_at: datetime
    closed_at: datetime | None


def steps(certificate: Certificate, signed: Check) -> Iterator[tuple[Step, str]]:
    """Make every check of a certificate. Each is named before it is made, with the act of the entry
    that it is about: when one fails, it is the last that was named, and no other is made.

    Raises CertificateError saying what is wrong; NoteError for a checkpoint signed by another key.
    """
    yield Step.SIGNED, ""
    checkpoint = signed(certificate.checkpoint)
    for proven in certificate.entries:
        yield Step.PROVEN, proven.entry.act
        proven.check(checkpoint)
    if certificate.of_night:
        return
    yield Step.WHOLE, ""
    story = _Story.of(certificate)
    for step, check in _CHECKS.items():
        if story.needs(step):
            yield step, ""
            check(story)


def erasure(certificate: Certificate, signed: Check) -> Erasure | ExportErasure:
    """Check that this is the whole story of one erasure, of a recording's none of it early.

    Raises CertificateError saying what is wrong; NoteError for a checkpoint signed by another key.
    """
    for _ in steps(certificate, signed):
        pass
    story = _Story.of(certificate)
    begun, erased, due = story.begun, story.erased, _instant(story.erased)
    when = due, begun.at, erased.at, story.closed.at if story.closed else None
    if story.of_export:
        facts = begun.facts
        return ExportErasure(
            str(facts["export"]), _count(facts), str(erased.facts.get("why")), *when
        )
    return Erasure(str(erased.recording), str(erased.facts["rule"]), erased.at < due, *when)


@dataclass(frozen=True, slots=True)
class _Story:
    """The entries of one erasure; `begun` is by which the recording or the export came to be."""

    begun: Entry
    erased: Entry
    granted: Entry | None
    closed: Entry | None

    @classmethod
    def of(cls, certificate: Certificate) -> "_Story":
        """Raises CertificateError when one is missing, or there are others."""
        begun, erased = certificate.entry(*BEGIN), certificate.entry("erased")
        granted, closed = certificate.entry(GRANTED), certificate.entry("day.closed")
        if certificate.entry(ASKED, EXPORT_ERASED):
            begun, erased = certificate.entry(ASKED), certificate.entry(EXPORT_ERASED)
            granted = None
        found = [each for each in (begun, erased, granted, closed) if each]
        if not begun or not erased or len(certificate.entries) != len(found):
            raise CertificateError(
                "A certificate has the entries stored, erased, day.closed, and erasure.granted of"
                " what was erased before its time; that of an export has export.asked,"
                " export.erased, day.closed."
            )
        return cls(begun, erased, granted, closed)

    @property
    def of_export(self) -> bool:
        return self.begun.act == ASKED

    def needs(self, step: Step) -> bool:
        """An export may be erased at any time; a day that is not over is not closed yet."""
        return not (
            (step is Step.DUE and self.of_export) or (step is Step.CLOSED and not self.closed)
        )


def _check_same(story: _Story) -> None:
    begun, erased = story.begun, story.erased
    if begun.recording != erased.recording or (erased.recording is None) is not story.of_export:
        raise CertificateError("The entries are not about the same recording.")
    for name in ("export", "day", "due") if story.of_export else ("day", "due", "rule"):
        if name not in erased.facts or begun.facts.get(name) != erased.facts[name]:
            raise CertificateError(f"`{name}` was another one in the first entry.")
    due = _instant(erased)
    try:  # of its day is the key that ends with it
        same = is_day_of(date.fromisoformat(str(erased.facts["day"])), due.astimezone(UTC).date())
    except (ValueError, OverflowError) as error:
        raise CertificateError(f"Its day cannot be read: {error}.") from None
    if not same:
        raise CertificateError("Its `day` is another one than that of its due time.")
    if story.of_export:
        _count(begun.facts)


def _check_order(story: _Story) -> None:
    if not story.begun.position < story.erased.position:
        raise CertificateError("It is erased before it came to be.")


def _check_due(story: _Story) -> None:
    begun, due = story.begun, _instant(story.erased)
    try:
        last = last_due(begun.at.astimezone(UTC).date(), str(begun.facts["rule"]))
        beyond = due.astimezone(UTC).date() > last
    except (ValueError, OverflowError) as error:
        raise CertificateError(f"The rule of the recording cannot be read: {error}.") from None
    if beyond:
        raise CertificateError("The recording was to be kept for longer than its rule says.")
    early = story.erased.at < due
    if early and not _granted(story.granted, story.erased):
        raise CertificateError("The recording was erased before it was due.")


def _check_closed(story: _Story) -> None:
    erased, closed = story.erased, story.closed
    if closed and closed.facts.get("day") != erased.facts.get("day"):
        raise CertificateError("The day that was closed is another one.")
    if closed and closed.position < erased.position:
        raise CertificateError("The day was closed before this was erased.")


_CHECKS: Mapping[Step, Callable[[_Story], None]] = {
    Step.SAME: _check_same,
    Step.ORDER: _check_order,
    Step.DUE: _check_due,
    Step.CLOSED: _check_closed,
}


def _granted(granted: Entry | None, erased: Entry) -> bool:
    """Whether two different keys granted this erasure before it was done."""
    return (
        granted is not None
        and granted.recording == erased.recording
        and granted.position < erased.position
        and by_two(granted.facts)
    )


def by_two(facts: Mapping[str, object]) -> bool:
    """Whether a granting names two different keys."""
    keys = facts.get("keys")
    return isinstance(keys, list) and len(set(map(str, keys))) == 2


def _count(facts: Mapping[str, object]) -> int:
    count = facts.get("recordings")
    if type(count) is not int:
        raise CertificateError("The certificate does not say how many recordings it was of.")
    return count


def _instant(entry: Entry) -> datetime:
    try:
        due = datetime.fromisoformat(str(entry.facts["due"]))
    except (KeyError, ValueError):
        due = None
    if due is None or due.tzinfo is None:
        raise CertificateError("The certificate does not say when it was due.")
    return due
