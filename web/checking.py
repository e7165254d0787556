"""The auditors' check of a certificate: a file is dropped, and the page says whether it holds.

The checks are those of `archive.certificate`, as `archive certificate verify` makes them; here each
is named as it was made, and the one that failed. It is the archive that answers: who does not trust
it checks the same file elsewhere (docs/proof.md). Nothing of the file is kept, or written to a log.
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from aiohttp import web

from archive.access import OPERATORS
from archive.certificate import (
    Certificate,
    CertificateError,
    ExportErasure,
    NoJsonError,
    Step,
    erasure,
    steps,
)
from archive.errors import MalformedError
from archive.note import Checkpoint, NoteError, Verifier
from archive.retention import Policy
from storage import signer
from web import asked, face, pages, parts
from web.acts import ACTS
from web.doors import OpenRoute, Route, Visit
from web.export_pages import ENDS
from web.words import Words, marked

MOST = 2**18
"""Bytes of a file; a certificate has some thousand, that of a night of many failures a few more."""

_FILE = "certificate"
_SHOWN = 300
"""Characters of the verifier's own words."""

VERDICTS = {
    "holds": marked("The certificate holds"),
    "fails": marked("The certificate does not hold"),
    "foreign": marked("This is not a certificate of this archive"),
    "broken": marked("This cannot be read as a certificate"),
    "no-json": marked("This is not the file of a certificate"),
    "large": marked("This file is too large"),
    "none": marked("No file was chosen"),
}
WHY = {
    "holds": marked("All that it says stands in the ledger, under a checkpoint of this archive."),
    "fails": marked("It was changed, or it does not show what it should. What failed is below."),
    "foreign": marked(
        "No signature under its checkpoint is of this archive's key: it is of another archive,"
        " or it was changed. One of another archive is checked there, or with that one's key."
    ),
    "broken": marked(
        "It is JSON, but a part of a certificate is missing or is not as it should be."
    ),
    "no-json": marked("A certificate is a file of JSON, as the archive gives it out."),
    "large": marked("A certificate is far smaller: nothing was looked at."),
    "none": marked("Choose the file of a certificate, or drop it here."),
}
STATUS = {"large": 413, "none": 422, "no-json": 422, "broken": 422}
"""Of the verdicts that are none: everywhere else a certificate was checked."""

STEPS = {
    Step.SIGNED: marked("Its checkpoint is signed by this archive's key"),
    Step.PROVEN: marked("This entry stands in the signed ledger, at its place:"),
    Step.WHOLE: marked("It has the entries of one erasure, and no others"),
    Step.SAME: marked("All of it is about the same recording or export, and the same day"),
    Step.ORDER: marked("It came to be before it was erased"),
    Step.DUE: marked("It was due by its rule, and not erased before, unless two people granted it"),
    Step.CLOSED: marked("The day that was closed is its own, and was closed afterwards"),
}

_ENDS: Mapping[str, str] = {str(why): text for why, text in ENDS.items()}


def routes() -> list[Route | OpenRoute]:
    """The addresses of the page."""
    return [
        Route("GET", "/certificate", OPERATORS, show),
        Route("POST", "/certificate", OPERATORS, check),
    ]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a file. `made` are the checks that were made, the last of which failed if it
    does not hold; `said` are the verifier's own words for that."""

    kind: str
    made: list[tuple[Step, str]] = field(default_factory=list)
    said: str = ""
    certificate: Certificate | None = None


async def show(request: web.Request, visit: Visit) -> web.Response:
    """`GET /certificate`: the form."""
    asked.refuse_others(request)
    return _page(request, visit, None)


async def check(request: web.Request, visit: Visit) -> web.Response:
    """`POST /certificate`: what the file shows."""
    asked.refuse_others(request)
    if request.content_type != parts.KIND:
        raise MalformedError(f"Send the file as {parts.KIND}.")
    content = await parts.file(request, _FILE, MOST)
    key = visit.vault.signer.verifier
    return _page(request, visit, judge(content, key))


def judge(content: bytes | None, key: Verifier) -> Verdict:
    """Check a file with the key of an archive; None is one that was too large."""
    if content is None:
        return Verdict("large")
    if not content.strip():
        return Verdict("none")
    try:
        certificate = Certificate.parse(content)
    except NoJsonError:
        return Verdict("no-json")
    except CertificateError as error:
        return Verdict("broken", said=str(error)[:_SHOWN])
    try:
        certificate.checkpoint.by(key)
    except NoteError:
        return Verdict("foreign")
    made: list[tuple[Step, str]] = []
    try:
        for each in steps(certificate, lambda note: signer.check(note, key)):
            made.append(each)
    except (CertificateError, NoteError) as error:
        return Verdict("fails", made, str(error)[:_SHOWN])
    return Verdict("holds", made, certificate=certificate)


def _page(request: web.Request, visit: Visit, verdict: Verdict | None) -> web.Response:
    said, policy = face.Reader.from_request(request).words, visit.vault.policy
    key = visit.vault.signer.verifier
    values: dict[str, object] = {
        "verdict": verdict and verdict.kind,
        "title": said.text(VERDICTS[verdict.kind]) if verdict else "",
        "why": said.text(WHY[verdict.kind]) if verdict else "",
        "said": verdict.said if verdict else "",
        "steps": _steps(verdict, said) if verdict else [],
        "shown": _shown(verdict.certificate, key, policy, said) if verdict else {},
        "key": str(key),
        "most": MOST,
        "token": pages.token(request, visit),
    }
    status = STATUS.get(verdict.kind, 200) if verdict else 200
    return face.page(request, "certificate.html", values, status=status)


def _steps(verdict: Verdict, said: Words) -> list[dict[str, object]]:
    """Each check that was made, and whether it held."""
    failed = len(verdict.made) - 1 if verdict.kind == "fails" else None
    return [
        {
            "text": said.text(STEPS[step]),
            "act": said.text(ACTS[act]) if act in ACTS else act[:_SHOWN],
            "held": number != failed,
        }
        for number, (step, act) in enumerate(verdict.made)
    ]


def _shown(
    certificate: Certificate | None, key: Verifier, policy: Policy, said: Words
) -> Mapping[str, object]:
    """What a certificate that holds shows: of one erasure, or of nights."""
    if certificate is None:
        return {}
    checkpoint = Checkpoint.parse(certificate.checkpoint.text)
    under = {
        "origin": checkpoint.origin,
        "size": said.number(checkpoint.size),
        "root": b64encode(checkpoint.root).decode(),
    }

    def moment(at: datetime) -> str:
        here = policy.local(at)
        return f"{said.day(here.date())} {said.time(here, 'medium')}"

    if certificate.of_night:
        nights = [each.entry for each in certificate.entries]
        return {**under, "nights": [(moment(each.at), each.facts) for each in nights]}
    found = erasure(certificate, lambda note: signer.check(note, key))
    under |= {
        "due": moment(found.due),
        "erased": moment(found.erased_at),
        "closed": moment(found.closed_at) if found.closed_at else "",
    }
    if isinstance(found, ExportErasure):
        return {
            **under,
            "export": found.export,
            "recordings": said.number(found.recordings),
            "asked": moment(found.asked_at),
            "why": said.text(_ENDS.get(found.why, found.why)),
        }
    return {
        **under,
        "recording": found.recording,
        "rule": found.rule,
        "stored": moment(found.stored_at),
        "early": found.early,
    }
