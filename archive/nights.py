"""The account of a night: one root over everything that fell due, and what became of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from archive import merkle
from archive.certificate import Certificate, CertificateError, Check

NAMED = 1000
"""How many recordings that are due and not erased are named in the ledger, at the most."""


def root_over(erased: Iterable[UUID] | Iterable[str], failed: Iterable[UUID]) -> bytes:
    """The Merkle root (RFC 9162) over `<id> erased` and `<id> failed`, in the order of the ids."""
    outcomes = sorted([f"{each} erased" for each in erased] + [f"{each} failed" for each in failed])
    # All ids are of one length, so that the order of these texts is that of the ids.
    return merkle.growth_over(merkle.leaf_hash(each.encode()) for each in outcomes).root


@dataclass(frozen=True, slots=True)
class Night:
    """What the certificate of a night shows of one run of its work: what was due, and what became
    of it. `failed` is the archive's word.
    """

    night: date
    told_at: datetime
    due: int
    erased: int
    failed: int


def accounts(certificate: Certificate, signed: Check) -> list[Night]:
    """Check that every account of this certificate is in the signed tree, at its place.

    Raises CertificateError saying what is wrong; NoteError for a checkpoint signed by another key.
    """
    certificate.check(signed)
    if len({each.entry.position for each in certificate.entries}) != len(certificate.entries):
        raise CertificateError("An account is in the certificate twice.")
    return [_night(each.entry.at, each.entry.facts) for each in certificate.entries]


def _night(at: datetime, facts: Mapping[str, object]) -> Night:
    counts = [facts.get(name) for name in ("due", "erased", "failed")]
    due, erased, failed = (each if type(each) is int else -1 for each in counts)
    try:
        night = date.fromisoformat(str(facts.get("night")))
    except ValueError:
        raise CertificateError("The account does not say of which night it is.") from None
    if min(erased, failed) < 0 or due != erased + failed:
        raise CertificateError(f"The counts of the night {night} do not add up.")
    return Night(night, at, due, erased, failed)
