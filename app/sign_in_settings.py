"""`[sign_in]`: how people sign in, and for how long."""

from dataclasses import dataclass
from datetime import timedelta

from app import values
from app.settings import Settings
from archive.grants import Grant
from storage import id_token
from storage.provider import Terms, may_be_asked
from storage.sessions import Limits

_WAYS = ("local", "provider", "both")


@dataclass(frozen=True, slots=True)
class SigningIn:
    """Local accounts, a provider, or both; and the limits of a session."""

    local: bool
    limits: Limits
    terms: Terms | None

    @classmethod
    def from_toml(cls, settings: Settings) -> "SigningIn":
        """Read `[sign_in]`. A provider is there whole, or not at all."""
        ways = settings.parsed("accounts", _ways)
        idle, absolute = (
            timedelta(seconds=settings.parsed(key, values.seconds)) for key in ("idle", "absolute")
        )
        terms = Terms(
            settings.parsed("issuer", _issuer),
            settings.text("client_id"),
            settings.secret("client_secret"),
            settings.words("algorithms", frozenset(id_token.KINDS)),
            settings.text("scopes"),
            settings.text("groups_claim"),
            _grants(settings),
            _named(settings, "acr"),
            _named(settings, "amr"),
        )
        if idle > absolute:
            settings.fail("idle", "must not be longer than absolute")
        if ways != "local":
            _require(settings, terms)
        elif terms.issuer:
            settings.fail("accounts", 'must be "provider" or "both" for an issuer to be asked')
        return cls(ways != "provider", Limits(idle, absolute), terms if terms.issuer else None)


def _ways(text: str) -> str:
    if text not in _WAYS:
        raise ValueError("must be one of " + ", ".join(_WAYS))
    return text


def _issuer(text: str) -> str:
    if text and not may_be_asked(text):
        raise ValueError("must be the provider's https:// address, as it names itself")
    return text


def _grants(settings: Settings) -> tuple[Grant, ...]:
    try:
        return tuple(map(Grant.from_text, settings.texts("groups")))
    except ValueError as error:
        settings.fail("groups", str(error))


def _named(settings: Settings, key: str) -> tuple[str, ...]:
    found = tuple(settings.texts(key))
    if any(not name or name.split() != [name] for name in found):
        settings.fail(key, "must be names without spaces, as the provider writes them")
    return found


def _require(settings: Settings, terms: Terms) -> None:
    needed = {
        "issuer": terms.issuer,
        "client_id": terms.client_id,
        "groups_claim": terms.groups_claim,
        "groups": terms.grants,
    }
    for key, value in needed.items():
        if not value:
            settings.fail(key, "is needed to sign in by a provider")
    if not terms.client_secret:
        variable = settings.variable("client_secret")
        settings.fail("client_secret", f"set {variable} or {variable}_FILE")
    if "openid" not in terms.scopes.split():
        settings.fail("scopes", "must have openid among them")
