"""The provider that vouches for people (OpenID Connect): where to send them, and what it says of
them when they come back.

Its addresses and keys are fetched over TLS, from the address that the configuration names and those
that are named there; no redirect is followed. Keys are fetched again for a token of a key that is
not known, once in a while: a provider may change its keys at any time, and a stranger who makes up
names of keys must not make the archive ask for each.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

import aiohttp

from archive.errors import UnauthenticatedError, UnavailableError
from archive.grants import Grant
from storage import id_token
from storage.id_token import Expected, Key, UnknownKeyError

AGE = 3600.0
"""Seconds after which the provider's addresses and keys are fetched anew."""

PAUSE = 60.0
"""Seconds between two fetches of keys for tokens whose key is not known."""

_PATIENCE = aiohttp.ClientTimeout(total=10)
_MOST = 2**20


@dataclass(frozen=True, slots=True)
class Terms:
    """What the configuration says of the provider."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    algorithms: frozenset[str]
    scopes: str
    groups_claim: str
    grants: tuple[Grant, ...]
    acr: tuple[str, ...] = ()
    amr: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was last fetched, and when, on the process' own clock."""

    authorize: str
    token: str
    keys: tuple[Key, ...]
    at: float


class Provider:
    """One provider, with what is known of it; ended by `close`."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self._seen: _Seen | None = None
        self._asked = 0.0
        self._turn = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """End its connections."""
        if self._session:
            await self._session.close()

    async def address(self, back: str, state: str, nonce: str, challenge: str) -> str:
        """Where a browser is sent to sign in. Raises UnavailableError."""
        seen = await self._known()
        asked = {
            "response_type": "code",
            "client_id": self.terms.client_id,
            "redirect_uri": back,
            "scope": self.terms.scopes,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            **({"acr_values": " ".join(self.terms.acr)} if self.terms.acr else {}),
        }
        return f"{seen.authorize}{'&' if '?' in seen.authorize else '?'}{urlencode(asked)}"

    async def redeem(
        self, code: str, back: str, verifier: str, nonce: str, now: datetime
    ) -> dict[str, Any]:
        """What the provider says of who came back with this code.

        Raises UnauthenticatedError for what cannot be believed, UnavailableError.
        """
        seen = await self._known()
        terms = self.terms
        asked = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": back,
            "code_verifier": verifier,
        }
        # As a form would have them (RFC 6749, 2.3.1): a secret may have any character.
        login = aiohttp.encode_basic_auth(
            quote_plus(terms.client_id), quote_plus(terms.client_secret)
        )
        answer = id_token.parsed(await self._ask(seen.token, asked, login))
        token = answer.get("id_token") if isinstance(answer, dict) else None
        if not isinstance(token, str):
            raise UnauthenticatedError("The provider did not say who it is.")
        expected = Expected(
            terms.issuer, terms.client_id, nonce, terms.algorithms, terms.acr, terms.amr
        )
        try:
            return id_token.read(token, seen.keys, expected, now)
        except UnknownKeyError:
            pass
        try:
            return id_token.read(token, (await self._changed(seen)).keys, expected, now)
        except UnknownKeyError:
            raise UnauthenticatedError("The provider's word is signed by no key of its.") from None

    async def _known(self) -> _Seen:
        async with self._turn:
            if self._seen is None or time.monotonic() - self._seen.at > AGE:
                self._seen = await self._look()
            return self._seen

    async def _changed(self, before: _Seen) -> _Seen:
        """What is known after the keys were fetched anew, if that was not done just now."""
        async with self._turn:
            now = time.monotonic()
            if self._seen is before and now - self._asked > PAUSE:
                self._asked = now
                self._seen = await self._look()
            return self._seen or before

    async def _look(self) -> _Seen:
        issuer = self.terms.issuer
        where = issuer.rstrip("/") + "/.well-known/openid-configuration"
        said = id_token.parsed(await self._ask(where))
        if not isinstance(said, dict) or said.get("issuer") != issuer:
            raise UnauthenticatedError("The provider says that it is another.")
        authorize, token, keys_at = (
            _checked(said.get(name), issuer)
            for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")
        )
        keys = id_token.keys(id_token.parsed(await self._ask(keys_at)))
        return _Seen(authorize, token, keys, time.monotonic())

    async def _ask(
        self, where: str, form: Mapping[str, str] | None = None, login: str = ""
    ) -> bytes:
        """Ask the provider. Raises UnavailableError; UnauthenticatedError for what it refuses."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=_PATIENCE)
        headers = {"Accept": "application/json", **({"Authorization": login} if login else {})}
        try:
            async with self._session.request(
                "POST" if form else "GET", where, data=form, headers=headers, allow_redirects=False
            ) as answer:
                body = await _body(answer)
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise UnavailableError("The provider that people sign in with is away.") from error
        if status >= 500 or len(body) > _MOST:
            raise UnavailableError("The provider that people sign in with fails.")
        if status != 200:
            raise UnauthenticatedError("The provider refuses this sign-in.")
        return body


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    while len(body) <= _MOST and (piece := await answer.content.readany()):
        body += piece
    return bytes(body)


def _checked(address: Any, issuer: str) -> str:
    """An address that may be asked: over TLS, or on this machine as the provider itself."""
    known = isinstance(address, str) and may_be_asked(address)
    if known and (address.startswith("https:") or not issuer.startswith("https:")):
        return str(address)
    raise UnauthenticatedError("The provider names an address that is not asked.")


def may_be_asked(address: str) -> bool:
    """Whether this is https, or http to this machine, as the tests have it."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        return False
    if not host or "@" in parts.netloc or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_here(host))


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
