"""The second factor: a code that changes every 30 seconds (TOTP, RFC 6238), from an application
that shares a secret with the archive.

The secret is sealed under a key of the ring, bound to its account. A code is accepted once: the
step that it belongs to is written down, and only a later one counts from then on.
"""

import hmac
import re
from datetime import datetime

import pyotp

from storage import boxes
from storage.keyring import Ring

_STEP = 30
_CODE = re.compile("[0-9]{6}", re.ASCII)
ISSUER = "Call archive"


def new() -> str:
    """A fresh secret of 160 bit, in base 32."""
    return pyotp.random_base32()


def seal(ring: Ring, account: str, secret: str) -> bytes:
    """Seal a secret."""
    return boxes.seal(ring.lookup_key("second-factor"), secret.encode(), account.encode())


def unseal(ring: Ring, account: str, sealed: bytes) -> str:
    """Open what `seal` sealed. Raises InvalidTag when it was changed, or is another account's."""
    return boxes.unseal(ring.lookup_key("second-factor"), sealed, account.encode()).decode()


def step_of(secret: str, code: str, now: datetime) -> int | None:
    """The step that this code belongs to: the present one, or one beside it for clocks that are off
    by as much. None for a wrong code.
    """
    code = "".join(code.split())
    known = bool(_CODE.fullmatch(code))
    present = int(now.timestamp()) // _STEP
    found = None
    for step in (present - 1, present, present + 1):
        right = pyotp.TOTP(secret).generate_otp(step)
        if hmac.compare_digest(right, code if known else "") and known:
            found = step
    return found


def address(secret: str, name: str) -> str:
    """What an application reads off the QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name=ISSUER)
