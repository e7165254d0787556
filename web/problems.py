"""Errors as the doors tell them: `application/problem+json` (RFC 9457), each logged once, here.

This is the one table that maps the subject's errors to HTTP. A log line holds the type of an error
and where it arose, never its message: drivers repeat values in theirs. Those of the key ring and of
the signer are the archive's own words, and are told.
"""

import json
import logging
import traceback
from collections.abc import Mapping

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from archive import errors
from storage.keyring import KeyRingError
from storage.signer import SignerError
from web import face, trace

log = logging.getLogger("archive.web")

BASE = "urn:call-archive:problem:"
"""What every problem type begins with; the rest names the error and never changes."""

STATUS: dict[type[errors.ArchiveError], tuple[int, str]] = {
    errors.DigestMismatchError: (400, "digest-mismatch"),
    errors.MalformedError: (400, "malformed"),
    errors.UnauthenticatedError: (401, "unauthenticated"),
    errors.ReasonNeededError: (403, "reason-needed"),
    errors.ForbiddenError: (403, "forbidden"),
    errors.NotFoundError: (404, "not-found"),
    errors.ConflictError: (409, "conflict"),
    errors.OffsetError: (409, "offset"),
    errors.ChangedError: (409, "changed"),
    errors.GoneError: (410, "gone"),
    errors.PreconditionError: (412, "precondition"),
    errors.VersionError: (412, "version"),
    errors.TooLargeError: (413, "too-large"),
    errors.NotAudioError: (415, "not-audio"),
    errors.RangeError: (416, "range"),
    errors.InvalidError: (422, "invalid"),
    errors.TooManyError: (429, "too-many"),
    errors.ChecksumError: (460, "checksum"),
    errors.UnavailableError: (503, "unavailable"),
}

_PLAIN = {
    404: ("not-found", "No such address", "GET /openapi.json lists what this door answers."),
    405: ("method", "Not with this method", "GET /openapi.json lists what this door answers."),
}

_REALM = 'realm="call archive"'


def problem(
    status: int,
    name: str,
    title: str,
    detail: str,
    *,
    extra: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """One problem document."""
    trace.note(problem=name)
    body = {"type": BASE + name, "title": title, "status": status, "detail": detail}
    return web.Response(
        status=status,
        text=json.dumps({**body, **(extra or {})}, ensure_ascii=False),
        content_type="application/problem+json",
        headers=headers,
    )


def answer(error: errors.ArchiveError) -> web.Response:
    """What a caller is told of an error of the subject; what no caller can mend is unexpected."""
    kind = next((kind for kind in type(error).__mro__ if kind in STATUS), None)
    if kind is None:
        return unexpected(error)
    status, name = STATUS[kind]
    headers: dict[str, str] = {}
    if isinstance(error, (errors.UnavailableError, errors.TooManyError)):
        headers[hdrs.RETRY_AFTER] = str(error.retry_after)
    if isinstance(error, errors.UnavailableError):
        log.warning("503 %s", error.detail)
    if isinstance(error, errors.UnauthenticatedError):
        challenges = [f"{scheme} {_REALM}" for scheme in error.schemes]
        headers[hdrs.WWW_AUTHENTICATE] = ", ".join(challenges)
    extra = dict(error.extra)
    if isinstance(error, errors.GoneError) and "recording" in extra:
        extra["certificate"] = f"/v1/certificates/{extra['recording']}"
        headers[hdrs.LINK] = f'<{extra["certificate"]}>; rel="describedby"'
    size = extra.get("size")
    if isinstance(error, errors.RangeError) and isinstance(size, int):
        headers[hdrs.CONTENT_RANGE] = f"bytes */{size}"
    return problem(status, name, error.title, error.detail, extra=extra, headers=headers)


def unexpected(error: Exception) -> web.Response:
    """What a caller is told of an error that nobody foresaw; the log says where it arose."""
    where = "".join(traceback.format_tb(error.__traceback__))
    # The messages of the ring and of the signer are for the operator, and our own.
    said = str(error) if isinstance(error, (KeyRingError, SignerError)) else ""
    log.error("answered 500 %s %s\n%s", type(error).__name__, said, where)
    return failed()


def failed() -> web.Response:
    """What is told of whatever only the operator can mend."""
    return problem(
        500,
        "unexpected",
        "The archive failed",
        "Nothing was kept of this request. Try again; if it stays, tell the operator.",
    )


def unreadable() -> web.Response:
    """What is told of a request that is not HTTP as it should be, repeating nothing of it."""
    return problem(
        400,
        "malformed",
        "The request cannot be read",
        "It is no HTTP/1.1 as it should be, or there is more of it than its length says.",
    )


@web.middleware
async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost layer: whatever goes wrong leaves as a problem document, or as its page."""
    known: errors.ArchiveError | None = None
    try:
        return await handler(request)
    except errors.ArchiveError as error:
        told, known = answer(error), error
    except web.HTTPException as error:
        told = _of_aiohttp(error)
    except ConnectionError:
        # The client has gone: there is nobody to tell.
        raise
    except Exception as error:  # the one boundary of the doors
        told = unexpected(error)
    return face.problem(request, told, known) if face.wanted(request) else told


def _of_aiohttp(error: web.HTTPException) -> web.Response:
    name, title, detail = _PLAIN.get(
        error.status, ("refused", "The request was refused", error.reason)
    )
    allow = error.headers.get(hdrs.ALLOW)
    headers: dict[str, str] = {hdrs.ALLOW: allow} if allow else {}
    return problem(error.status, name, title, detail, headers=headers)
