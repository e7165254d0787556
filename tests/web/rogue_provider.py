"""A provider of our own for OpenID Connect, that says whatever a test wants it to say."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus

from aiohttp import web
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry

CLIENT, SECRET = "archive", "the archive's own secret"

SIGNING = RSAKey.generate_key(2048, {"kid": "one"})
FOREIGN = RSAKey.generate_key(2048, {"kid": "one"})
ELLIPTIC = ECKey.generate_key("P-256", {"kid": "two"})

_ANY = JWSRegistry(algorithms=list(JWSRegistry.algorithms))

Sign = Callable[[dict[str, Any], dict[str, Any]], str]


def signed(header: dict[str, Any], claims: dict[str, Any], key: Any = SIGNING) -> str:
    """A token, by any algorithm that there is."""
    return jws.serialize_compact(header, json.dumps(claims), key, registry=_ANY)


def unsigned(claims: dict[str, Any], header: dict[str, Any]) -> str:
    """A token of the algorithm `none`, with nothing behind its last dot."""
    parts = [_text(json.dumps(each).encode()) for each in (header, claims)]
    return ".".join([*parts, ""])


def by_secret(claims: dict[str, Any], header: dict[str, Any], secret: bytes) -> str:
    """A token whose HMAC is made with whatever one calls a secret."""
    said = unsigned(claims, header).rstrip(".")
    return f"{said}.{_text(hmac.digest(secret, said.encode(), 'sha256'))}"


PUBLIC: bytes = SIGNING.as_pem(private=False)
"""The public key that everybody has."""


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@dataclass(slots=True)
class Rogue:
    """What it says when it is asked. `claims` and `header` change what an honest one would say."""

    address: str = ""
    nonce: str = ""
    challenge: str = ""
    claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    sign: Callable[[dict[str, Any], dict[str, Any]], str] | None = None
    keys: list[Any] = field(default_factory=lambda: [SIGNING, ELLIPTIC])
    discovery: dict[str, Any] = field(default_factory=dict)
    token: web.Response | None = None
    codes: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def said(self) -> dict[str, Any]:
        """The claims of its token; one that is None is left out."""
        now = int(time.time())
        honest = {
            "iss": self.address,
            "aud": CLIENT,
            "sub": "subject-1",
            "iat": now,
            "exp": now + 300,
            "nonce": self.nonce,
            "groups": ["leads"],
            "preferred_username": "anna",
        }
        return {name: value for name, value in (honest | self.claims).items() if value is not None}

    async def discover(self, request: web.Request) -> web.Response:
        self.asked.append("discovery")
        ends = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        places = {end: f"{self.address}/{end}" for end in ends}
        return web.json_response({"issuer": self.address, **places, **self.discovery})

    async def give_keys(self, request: web.Request) -> web.Response:
        self.asked.append("keys")
        listed = [key if isinstance(key, dict) else key.as_dict(private=False) for key in self.keys]
        return web.json_response({"keys": listed})

    async def redeem(self, request: web.Request) -> web.Response:
        self.asked.append("token")
        if self.token is not None:
            return self.token
        form = await request.post()
        verifier, code = str(form.get("code_verifier")), str(form.get("code"))
        hashed = _text(hashlib.sha256(verifier.encode()).digest())
        login = base64.b64encode(f"{CLIENT}:{quote_plus(SECRET)}".encode()).decode()
        right = hashed == self.challenge and request.headers["Authorization"] == f"Basic {login}"
        if not right or code in self.codes:
            return web.json_response({"error": "invalid_grant"}, status=400)
        self.codes.add(code)
        header = {"alg": "RS256", "kid": "one", **self.header}
        header = {name: value for name, value in header.items() if value is not None}
        sign = self.sign or (lambda claims, header: signed(header, claims))
        token = sign(self.said(), header)
        return web.json_response({"id_token": token, "access_token": "x", "token_type": "Bearer"})


@asynccontextmanager
async def rogue_provider() -> AsyncIterator[Rogue]:
    """One that listens on this machine."""
    rogue = Rogue()
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", rogue.discover)
    app.router.add_get("/jwks_uri", rogue.give_keys)
    app.router.add_post("/token_endpoint", rogue.redeem)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    rogue.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield rogue
    finally:
        await runner.cleanup()
