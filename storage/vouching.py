"""Signing in by a provider: from the browser that is sent there to the session that it comes back
to.

What belongs to one sign-in hangs on one random text that its browser alone holds: the state, the
nonce and the PKCE verifier are HMACs of it under a key of the ring, with the time and with where it
is to go on to. So an answer counts in the browser that asked, for ten minutes, and once.
"""

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from archive.errors import ForbiddenError, UnauthenticatedError
from archive.grants import granted
from storage import id_token, sessions, signing_in, vouched
from storage.database import Connection, connection
from storage.keyring import Ring
from storage.provider import Provider
from storage.sessions import Limits
from storage.signing_in import Begun
from storage.vault import Vault

AGE = timedelta(minutes=10)
"""How long somebody may take at the provider."""

_FORM = re.compile(r"([A-Za-z0-9_-]{43})\.([0-9]{1,12})\.([A-Za-z0-9_-]{0,3000})")


@dataclass(frozen=True, slots=True)
class Flow:
    """One sign-in that is under way, as its browser holds it; `to` is where to go on to."""

    chance: str = field(repr=False)
    begun: int
    to: str

    @classmethod
    def new(cls, now: datetime, to: str) -> "Flow":
        """Begin one."""
        return cls(secrets.token_urlsafe(32), int(now.timestamp()), to)

    @classmethod
    def from_text(cls, text: str) -> "Flow":
        """Read what a browser shows. Raises UnauthenticatedError."""
        match = _FORM.fullmatch(text)
        try:
            if match:
                to = base64.urlsafe_b64decode(match[3] + "=" * (-len(match[3]) % 4)).decode()
                return cls(match[1], int(match[2]), to)
        except ValueError:
            pass
        raise UnauthenticatedError("This sign-in was not begun in this browser.")

    def text(self) -> str:
        """What the browser holds."""
        to = base64.urlsafe_b64encode(self.to.encode()).decode().rstrip("=")
        return f"{self.chance}.{self.begun}.{to}"

    def part(self, ring: Ring, kind: Literal["state", "nonce", "verifier", "done"]) -> str:
        """What the provider is given of it, and what is written down of it."""
        said = f"{kind}\n{self.text()}".encode()
        made = hmac.digest(ring.lookup_key("provider-flow"), said, "sha256")
        return base64.urlsafe_b64encode(made).decode().rstrip("=")


async def begin(vault: Vault, provider: Provider, to: str, back: str) -> tuple[Flow, str]:
    """Begin a sign-in; returns it, and where to send the browser. Raises UnavailableError."""
    async with connection(vault.sign_in) as lent:
        flow = Flow.new(await lent.fetchval("SELECT archive_now()"), to)
    verifier = flow.part(vault.ring, "verifier")
    hashed = hashlib.sha256(verifier.encode()).digest()
    challenge = base64.urlsafe_b64encode(hashed).decode().rstrip("=")
    state, nonce = flow.part(vault.ring, "state"), flow.part(vault.ring, "nonce")
    return flow, await provider.address(back, state, nonce, challenge)


async def finish(
    vault: Vault, provider: Provider, flow: Flow, code: str, state: str, back: str, limits: Limits
) -> Begun:
    """Sign in who came back from the provider.

    Raises UnauthenticatedError, ForbiddenError for who may nothing here, UnavailableError.
    """
    ring = vault.ring
    async with connection(vault.sign_in) as lent:
        now: datetime = await lent.fetchval("SELECT archive_now()")
    if not hmac.compare_digest(state.encode(), flow.part(ring, "state").encode()):
        raise UnauthenticatedError("This sign-in was not begun in this browser.")
    if not 0 <= now.timestamp() - flow.begun + 1 <= AGE.total_seconds():
        raise UnauthenticatedError("This sign-in took too long: begin again.")
    if not code:
        raise UnauthenticatedError("The provider refuses this sign-in.")
    verifier, nonce = flow.part(ring, "verifier"), flow.part(ring, "nonce")
    claims = await provider.redeem(code, back, verifier, nonce, now)
    subject = f"{provider.terms.issuer}\n{claims['sub']}"
    async with connection(vault.sign_in) as lent:
        async with lent.transaction():
            await _once(lent, flow.part(ring, "done"))
            groups = id_token.groups(claims, provider.terms.groups_claim)
            grant = granted(groups, provider.terms.grants)
            account = grant and await vouched.account_of(
                lent, ring, subject, str(claims.get("preferred_username", "")), grant
            )
            if account:
                secret = await sessions.begin(lent, ring, account, limits, "provider")
                return Begun(secret, setup=False)
            refused = await vouched.ungranted(lent, ring, subject)
        await signing_in.refuse(lent, ring, refused)
    raise ForbiddenError("You may sign in, but there is nothing here that you may do.")


async def _once(lent: Connection, mark: str) -> None:
    """Let each sign-in be done once. Raises UnauthenticatedError."""
    await lent.execute("DELETE FROM sign_in_done WHERE at < archive_now() - interval '1 hour'")
    done = await lent.fetchval(
        "INSERT INTO sign_in_done (mark) VALUES ($1) ON CONFLICT DO NOTHING RETURNING true",
        hashlib.sha256(mark.encode()).digest(),
    )
    if not done:
        raise UnauthenticatedError("This sign-in was done already.")
