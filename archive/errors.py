"""What can go wrong, in the words of the subject.

Each error is its own documentation: it says what happened and, in `detail`, what the caller can do
about it. `web.problems` alone knows which HTTP status each becomes. No message may hold a telephone
number, a name, a token or any other value that a caller sent.
"""

from collections.abc import Mapping


class ArchiveError(Exception):
    """What the caller is told; `detail` says what to do, `extra` adds members to the answer."""

    title = "The archive could not do this"

    def __init__(self, detail: str, **extra: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra


class DigestMismatchError(ArchiveError):
    """The body that arrived is not the one whose digest was announced. Nothing was kept."""

    title = "The body does not match its digest"


class MalformedError(ArchiveError):
    """The request cannot be read: a broken multipart body, an unknown filter, a bad header."""

    title = "The request cannot be read"


class OutdatedError(MalformedError):
    """An address that holds a search, of too long ago."""


class UnauthenticatedError(ArchiveError):
    """No key, or a key that is not known or no longer valid. `schemes` are the ways to show one."""

    title = "A valid key is needed"
    schemes: tuple[str, ...] = ("Bearer",)


class ForbiddenError(ArchiveError):
    """The key is known, but its level may not do this."""

    title = "This key may not do this"


class LevelError(ForbiddenError):
    """Another level is needed, whatever else is asked."""


class OtherSessionError(ForbiddenError):
    """A form of a page that an earlier session loaded, or of none of ours."""


class ReasonNeededError(ForbiddenError):
    """Who wants to hear this has to say why first."""

    title = "A reason is needed"


class NotFoundError(ArchiveError):
    """Never was, or this caller may not know of it: the two look the same."""

    title = "Not found"


class NoCertificateError(NotFoundError):
    """No certificate: never was, this caller may not know of it, or the bytes are not gone yet."""


class ConflictError(ArchiveError):
    """The same call is here already with other bytes, another start or another type."""

    title = "This call is here already, and it is not the same"


class ChangedError(ArchiveError):
    """The recording is no more as it was when this was begun, or has too little time left."""

    title = "The recording is not as it was"


class GoneError(ArchiveError):
    """The recording's year is over, or it was erased before."""

    title = "This recording is gone"


class TooLargeError(ArchiveError):
    """More bytes or more minutes than the configuration takes."""

    title = "The recording is too large"


class NotAudioError(ArchiveError):
    """The bytes are not audio, or in a format that is not taken."""

    title = "This is not audio that the archive takes"


class RangeError(ArchiveError):
    """The byte range lies outside the recording."""

    title = "The range cannot be satisfied"


class OffsetError(ArchiveError):
    """An upload goes on somewhere else than where it is; `offset` says where that is."""

    title = "The upload is not at this offset"


class ChecksumError(ArchiveError):
    """A part of an upload arrived with other bytes than were announced; it was dropped."""

    title = "The part does not match its checksum"


class PreconditionError(ArchiveError):
    """The audio is not the one that the caller goes on with."""

    title = "It is not what was expected"


class VersionError(ArchiveError):
    """The client speaks another version of the upload protocol."""

    title = "Another version of tus is spoken here"


class InvalidError(ArchiveError):
    """Metadata is wrong; `errors` names every field that is, at once."""

    title = "The metadata is wrong"

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__(
            "Correct the fields named in `errors` and send the request again.",
            errors=dict(errors),
        )
        self.errors = dict(errors)


class TooManyError(ArchiveError):
    """The key asks more often, or hands over more in a day, than it may.

    `retry_after` is in seconds.
    """

    title = "This key has asked too much"

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class UnavailableError(ArchiveError):
    """A store is away or the call is just being taken in; nothing was lost, nothing is half kept.

    `retry_after` is in seconds.
    """

    title = "Not possible just now"

    def __init__(self, detail: str, retry_after: int = 5) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
