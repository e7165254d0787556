"""Passwords: Argon2id over an HMAC under a key of the ring, so that a stolen database cannot even
be guessed at.

A hash takes 64 MiB and a good part of a second on purpose. So only a few are made at once, few more
may wait, and whoever comes then is told to come back: signing in is no way to take the machine
down.
"""

import asyncio
import base64
import hmac
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from zxcvbn import zxcvbn

from archive.errors import UnavailableError
from storage.keyring import Ring

AT_ONCE = 2
WAITING = 16
"""How many hashes a process makes at once, and how many more may wait for that."""

_HASHER = PasswordHasher()
"""The second recommendation of RFC 9106: three passes over 64 MiB in four lanes."""


def _text(length: int) -> str:
    return base64.b64encode(secrets.token_bytes(length)).decode().rstrip("=")


NOBODYS = (
    f"$argon2id$v=19$m={_HASHER.memory_cost},t={_HASHER.time_cost},p={_HASHER.parallelism}"
    f"${_text(_HASHER.salt_len)}${_text(_HASHER.hash_len)}"
)
"""What a password is compared with where there is none: as much work, and never right."""


WORDS = (
    *("archive", "call", "calls", "recording", "recordings", "password", "welcome"),
    *("arkisto", "puhelu", "puhelut", "puheluarkisto", "tallenne", "tallenteet", "salasana"),
    *("tervetuloa", "arkiv", "samtal", "samtalsarkiv", "inspelning", "lösenord", "välkommen"),
)
"""What somebody tries first here."""

_SAFE = 3
"""The least score of a password: over 10^8 guesses, which at some 300 a day nobody makes."""

_LOOKED_AT = 72
"""The characters that are looked at: what is safe so far is not made worse by more."""


class Passwords:
    """The places where hashes are made; `here` is how many have one or wait for one."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(AT_ONCE)
        self.here = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place. Raises UnavailableError when too many wait already."""
        if self.here >= AT_ONCE + WAITING:
            raise UnavailableError("Too many people sign in at once; try again.", 2)
        self.here += 1
        try:
            async with self._places:
                yield
        finally:
            self.here -= 1


async def is_guessed(password: str, name: str) -> bool:
    """Whether it is one of those that are tried first, or made of a few of them; in a `place`.

    By the lists and the rules of zxcvbn: common passwords, names, words, rows of keys, dates and
    repetitions; and by words of this archive and the person's own name.
    """
    looked = await asyncio.to_thread(
        zxcvbn, password[:_LOOKED_AT], user_inputs=[name, *name.split("."), *WORDS]
    )
    return bool(looked["score"] < _SAFE)


async def hashed(ring: Ring, account: str, password: str) -> str:
    """What is stored of a password; to be made in a `place`."""
    return await asyncio.to_thread(_HASHER.hash, _peppered(ring, account, password))


async def matches(ring: Ring, account: str, password: str, stored: str) -> bool:
    """Whether it is the password that this was stored of; in a `place`."""
    shown = _peppered(ring, account, password)
    try:
        return await asyncio.to_thread(_HASHER.verify, stored, shown)
    except VerificationError:
        return False


def _peppered(ring: Ring, account: str, password: str) -> str:
    # With the id, so that a hash is no use in another's row. A text of any length becomes a short
    # one here, and one that is no UTF-8 is no error.
    said = f"{account}\n{password}".encode(errors="surrogatepass")
    return hmac.new(ring.lookup_key("password"), said, "sha256").hexdigest()
