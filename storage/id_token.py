"""What a provider says of who signed in, believed as far as it can be checked.

The algorithm is one that the configuration allows, never what a token asks for: `none` and the
HMACs cannot be allowed at all, so that a public key is never taken for a secret. The key is the
provider's own, of the kind that the algorithm is for. The token is for this archive, of this
sign-in (`nonce`), fresh and not over.
"""

import hmac
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey, import_key

from archive.errors import UnauthenticatedError

KINDS = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
    "Ed25519": "OKP",
}
"""The algorithms that can be allowed, and the kind of key that each is for."""

_SKEW = 60
"""Seconds that the provider's clock may be off."""

_FRESH = 600
"""Seconds ago that a token may have been made."""

Key = RSAKey | ECKey | OKPKey


class UnknownKeyError(Exception):
    """No key of the provider's is known that this token names."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token has to be: whose, for whom, of which sign-in, signed how.

    And, where there are any, one of the strengths (`acr`) and of the ways (`amr`) by which the
    provider has to have asked who it is.
    """

    issuer: str
    audience: str
    nonce: str
    algorithms: Collection[str]
    acr: Collection[str] = ()
    amr: Collection[str] = ()


def keys(document: Any) -> tuple[Key, ...]:
    """The provider's keys that signatures are checked with; what is none is left out."""
    found: list[Key] = []
    listed = document.get("keys") if isinstance(document, dict) else None
    for raw in (listed if isinstance(listed, list) else [])[:100]:
        if not isinstance(raw, dict) or raw.get("use", "sig") != "sig":
            continue
        try:
            key = import_key(raw) if raw.get("kty") in KINDS.values() else None
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        if isinstance(key, Key) and not key.is_private:
            found.append(key)
    return tuple(found)


def read(token: str, known: Sequence[Key], expected: Expected, now: datetime) -> dict[str, Any]:
    """The claims of a token. Raises UnauthenticatedError, and UnknownKeyError for `keys` that may
    have been changed since they were fetched.
    """
    try:
        header = jws.extract_compact(token.encode()).headers()
        algorithm, key = _key(header, known, expected)
        claims = jwt.decode(token, key, algorithms=[algorithm]).claims
    except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise _refused("its signature") from error
    _check(claims, expected, now.timestamp())
    return claims


def _key(header: Mapping[str, Any], known: Sequence[Key], expected: Expected) -> tuple[str, Key]:
    algorithm, name = header.get("alg"), header.get("kid")
    if algorithm not in expected.algorithms or algorithm not in KINDS or "crit" in header:
        raise _refused("its algorithm")
    fitting = [
        key
        for key in known
        if key.key_type == KINDS[algorithm]
        and key.get("alg") in (None, algorithm)
        and (name is None or key.get("kid") == name)
    ]
    if not fitting:
        raise UnknownKeyError
    if len(fitting) > 1:
        raise _refused("its key, which it does not name")
    return algorithm, fitting[0]


def _check(claims: Mapping[str, Any], expected: Expected, now: float) -> None:
    if claims.get("iss") != expected.issuer:
        raise _refused("its issuer")
    if claims.get("aud") not in (expected.audience, [expected.audience]):
        raise _refused("whom it is for")
    if claims.get("azp", expected.audience) != expected.audience:
        raise _refused("whom it was given to")
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not hmac.compare_digest(
        nonce.encode(errors="replace"), expected.nonce.encode()
    ):
        raise _refused("its nonce")
    made, over, begins = (_instant(claims, name) for name in ("iat", "exp", "nbf"))
    if made is None or over is None or not now - _FRESH <= made <= now + _SKEW:
        raise _refused("its time")
    if over <= now - _SKEW or (begins is not None and begins > now + _SKEW):
        raise _refused("its time")
    _check_strength(claims, expected)
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        raise _refused("its subject")


def _check_strength(claims: Mapping[str, Any], expected: Expected) -> None:
    strength, ways = claims.get("acr"), claims.get("amr")
    if expected.acr and not (isinstance(strength, str) and strength in expected.acr):
        raise _refused("how strongly it asked")
    named = {way for way in ways if isinstance(way, str)} if isinstance(ways, list) else set()
    if expected.amr and named.isdisjoint(expected.amr):
        raise _refused("the way in which it asked")


def _instant(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _refused("its time")
    return float(value)


def _refused(what: str) -> UnauthenticatedError:
    return UnauthenticatedError(f"The provider's word cannot be taken, for {what}.")


def groups(claims: Mapping[str, Any], name: str) -> frozenset[str]:
    """The groups that a claim lists; one alone may stand as a text."""
    listed = claims.get(name)
    if isinstance(listed, str):
        return frozenset({listed})
    many = listed if isinstance(listed, list) else []
    return frozenset(each for each in many if isinstance(each, str))


def parsed(body: bytes) -> Any:
    """JSON of a provider's. Raises UnauthenticatedError for what is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise _refused("its form") from None
