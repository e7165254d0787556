"""The form of a bearer token: `cra_<id>_<secret>_<checksum>`.

The prefix lets a scanner find a token that leaked, and the checksum (CRC-32 of all before it, in
hex) tells a mistyped one from a wrong one without a look at the database. Letters and digits alone,
so that a double click takes all of it.
"""

import re
import secrets
import string
import zlib
from dataclasses import dataclass, field

PATTERN = r"cra_[a-z0-9]{12}_[A-Za-z0-9]{43}_[0-9a-f]{8}"
"""What a scanner looks for."""

_FORM = re.compile(r"cra_([a-z0-9]{12})_([A-Za-z0-9]{43})_([0-9a-f]{8})")
_SMALL = string.ascii_lowercase + string.digits
_ALL = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class Token:
    """The id of a key, and the secret that shows it to be held: 43 letters or digits, 256 bit."""

    id: str
    secret: str = field(repr=False)

    @classmethod
    def new(cls, key: str | None = None) -> "Token":
        """A fresh secret, for a key that is there or for a new one."""
        return cls(key or _random(_SMALL, 12), _random(_ALL, 43))

    @classmethod
    def from_text(cls, text: str) -> "Token | None":
        """Read a token; None for what is none, or was mistyped."""
        match = _FORM.fullmatch(text)
        if not match or _checksum(text[:-9]) != match[3]:
            return None
        return cls(match[1], match[2])

    def text(self) -> str:
        """The token as it is shown, once."""
        body = f"cra_{self.id}_{self.secret}"
        return f"{body}_{_checksum(body)}"


def _random(letters: str, length: int) -> str:
    return "".join(secrets.choice(letters) for _ in range(length))


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
