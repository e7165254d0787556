"""The certificate of an erasure: what the ledger tells of one recording, and that it does so.

It is one JSON object. Its `entries` are those of the ledger: `stored`, which said when the
recording is due; `erased`; and, once the day is over, `day.closed`, when the day's key was
destroyed. Each has its place, and the proof that it is in the tree whose signed root stands in
`checkpoint`. Nothing in it is personal, so it outlives the recording.

What it proves is that the archive wrote this down, at that place, and has not changed it since the
checkpoint. That bytes and keys are gone is what the archive says that it saw: docs/proof.md.
"""

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from archive import merkle
from archive.ledger import Entry, canonical
from archive.merkle import ProofError
from archive.note import Checkpoint, Note

FORMAT = "call-archive certificate 1"
BEGIN = ("stored", "rebuilt")
"""The acts by which a recording comes to be in the archive."""

GRANTED = "erasure.granted"
"""The act by which a recording is erased before its time: two people, of whom it names the keys."""

Check = Callable[[Note], Checkpoint]
"""Gives the checkpoint of a note that is signed as it should be; NoteError for any other."""


class CertificateError(ValueError):
    """This is not a certificate, or it does not show what it should; the message says why."""


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
            if not isinstance(raw, dict) or raw["certificate"] != FORMAT:
                raise CertificateError("This is not a certificate of this archive.")
            entries = [Proven.from_json(each) for each in raw["entries"]]
            return cls(entries, Note.parse(raw["checkpoint"]))
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise CertificateError(f"This is not a certificate: {error}") from None

    def entry(self, *acts: str) -> Entry | None:
        """The first entry of one of these acts."""
        return next((each.entry for each in self.entries if each.entry.act in acts), None)

    def check(self, signed: Check) -> Checkpoint:
        """Check that every entry is in the signed tree, at its place.

        Raises CertificateError; NoteError if the checkpoint is not signed by the right key.
        """
        checkpoint = signed(self.checkpoint)
        for proven in self.entries:
            entry = proven.entry
            leaf = merkle.leaf_hash(entry.text)
            try:
                merkle.check_inclusion(
                    leaf, entry.position, checkpoint.size, proven.proof, checkpoint.root
                )
            except ProofError as error:
                raise CertificateError(f"The entry `{entry.act}` is not proven: {error}.") from None
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


def erasure(certificate: Certificate, signed: Check) -> Erasure:
    """Check that this is the whole story of one erasure, none of it early.

    Raises CertificateError saying what is wrong; NoteError for a checkpoint signed by another key.
    """
    certificate.check(signed)
    stored, erased = certificate.entry(*BEGIN), certificate.entry("erased")
    granted, closed = certificate.entry(GRANTED), certificate.entry("day.closed")
    found = [each for each in (stored, erased, granted, closed) if each]
    if not stored or not erased or len(certificate.entries) != len(found):
        raise CertificateError(
            "A certificate has the entries stored, erased, day.closed, and erasure.granted of what"
            " was erased before its time."
        )
    if stored.recording is None or stored.recording != erased.recording:
        raise CertificateError("The entries are not about the same recording.")
    for name in ("day", "due", "rule"):
        if stored.facts.get(name) != erased.facts.get(name):
            raise CertificateError(f"`{name}` was another one when the recording was stored.")
    due = _instant(erased)
    if not stored.position < erased.position:
        raise CertificateError("The recording is erased before it is stored.")
    early = erased.at < due
    if early and not _granted(granted, erased):
        raise CertificateError("The recording was erased before it was due.")
    if closed and closed.facts.get("day") != erased.facts.get("day"):
        raise CertificateError("The day that was closed is not the recording's.")
    if closed and closed.position < erased.position:
        raise CertificateError("The day was closed before the recording was erased.")
    return Erasure(
        str(erased.recording),
        str(erased.facts["rule"]),
        early,
        due,
        stored.at,
        erased.at,
        closed.at if closed else None,
    )


def _granted(granted: Entry | None, erased: Entry) -> bool:
    """Whether two different keys granted this erasure before it was done."""
    keys = granted.facts.get("keys") if granted else None
    return (
        granted is not None
        and granted.recording == erased.recording
        and granted.position < erased.position
        and isinstance(keys, list)
        and len(set(map(str, keys))) == 2
    )


def _instant(entry: Entry) -> datetime:
    try:
        due = datetime.fromisoformat(str(entry.facts["due"]))
    except (KeyError, ValueError):
        due = None
    if due is None or due.tzinfo is None:
        raise CertificateError("The certificate does not say when the recording was due.")
    return due
