"""Boxes: small things, each sealed whole. A reason, who is in a team, the ring's own content.

    NONCE (12) | ciphertext | TAG (16)

AES-256-GCM. The key is a lookup key of the ring, its root, or made of a day's key: then the box
ends with that day, in every copy. Additional data say whose it is: in another's row it does not
open.

The nonce is random. NIST SP 800-38D (8.3) allows 2^32 messages under one key for that, which is 13
a second for ten years; the keys of a day and the root do not live so long. The chunks of a
recording count theirs instead (`storage.sealing`).
"""

import hmac
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE = 12


def key_for(day_key: bytes, label: bytes) -> bytes:
    """The key of a day for one use: HMAC-SHA256 of the use's label."""
    return hmac.digest(day_key, label, "sha256")


def seal(key: bytes, plain: bytes, data: bytes = b"") -> bytes:
    """Seal something small under a key of 32 bytes."""
    nonce = secrets.token_bytes(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, plain, data)


def unseal(key: bytes, sealed: bytes, data: bytes = b"") -> bytes:
    """Open what `seal` sealed. Raises InvalidTag for anything else, another key or other data."""
    if len(sealed) < _NONCE:
        raise InvalidTag
    return AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], data)
