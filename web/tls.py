"""The certificate that a door shows, taken up again when its files are renewed.

A renewed pair gets a context of its own, and with it sessions of its own: nobody comes in by a
session that was begun with a client certificate whose authority is trusted no more. Files that do
not make a whole pair are left alone, and the door goes on with what it has: it is told in the log,
in the metrics and by `archive check`.
"""

import logging
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

log = logging.getLogger("archive.tls")

LOOK = 2.0
"""Seconds between two looks at the files."""

SOON = timedelta(days=14)
"""How long before its end a certificate is told of."""

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2; those of 1.3 are all good."""


class TlsError(RuntimeError):
    """A door's certificate, key or authority cannot be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Files:
    """Where the PEM files of one door lie; with `client_ca` clients must show a certificate."""

    door: str
    cert: Path
    key: Path
    client_ca: Path | None = None

    def contents(self) -> tuple[bytes, ...]:
        """All that stands in them. Raises TlsError for one that cannot be read."""
        try:
            return tuple(
                path.read_bytes() for path in (self.cert, self.key, self.client_ca) if path
            )
        except OSError as error:
            raise self.wrong(f"{error.filename} cannot be read ({error.strerror})") from None

    def context(self) -> ssl.SSLContext:
        """A context of these files as they are. Raises TlsError when they make none."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        try:
            # With a password: a key that wants one must not ask for it at the terminal.
            context.load_cert_chain(self.cert, self.key, password="")
        except OSError as error:
            reason = getattr(error, "reason", None) or error.strerror
            raise self.wrong(f"certificate and key are no pair ({reason})") from None
        if self.client_ca:
            try:
                context.load_verify_locations(self.client_ca)
            except OSError:
                raise self.wrong(f"{self.client_ca} holds no certificate") from None
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def wrong(self, what: str) -> TlsError:
        """The error of these files."""
        return TlsError(f"the certificate of the {self.door} door cannot be taken up: {what}")


def ends(files: Files) -> datetime:
    """When the first certificate of the chain ends, or the last of the clients' authorities.

    Raises TlsError.
    """
    try:
        chain = x509.load_pem_x509_certificates(files.cert.read_bytes())
        trusted = files.client_ca and x509.load_pem_x509_certificates(files.client_ca.read_bytes())
    except (OSError, ValueError) as error:
        raise files.wrong(f"it cannot be read ({type(error).__name__})") from None
    first = min(each.not_valid_after_utc for each in chain)
    return min(first, max(each.not_valid_after_utc for each in trusted)) if trusted else first


class Shown:
    """What one door shows: its context, when that ends, and why the files are not taken up.

    Making it raises TlsError when the files make no context.
    """

    def __init__(self, files: Files) -> None:
        self.files = files
        self.refused = ""
        self._taken = self._seen = files.contents()
        self.context, self.ends = _loaded(files)

    @property
    def left(self) -> timedelta:
        """How long it is valid yet, by the machine's clock."""
        return self.ends - datetime.now(UTC)

    def look(self) -> bool:
        """Look at the files; True when what they make is new and was taken up.

        They are taken when two looks in a row saw the same, so that a pair is seldom met while it
        is being written. What is refused is told once.
        """
        try:
            contents = self.files.contents()
            if contents != self._seen or contents == self._taken:
                self._seen = contents
                self.refused = "" if contents == self._taken else self.refused
                return False
            self.context, self.ends = _loaded(self.files)
        except TlsError as error:
            if self.refused != str(error):
                log.error("%s; the door goes on with the one that it has", error)  # noqa: TRY400
            self.refused = str(error)
            return False
        self._taken, self.refused = contents, ""
        log.info("the %s door shows a new certificate until %s", self.files.door, self.ends)
        return True


def _loaded(files: Files) -> tuple[ssl.SSLContext, datetime]:
    before = files.contents()
    loaded = files.context(), ends(files)
    if files.contents() != before:
        raise files.wrong("it is just being written")
    return loaded
