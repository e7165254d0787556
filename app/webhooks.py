"""`[[webhook]]`: systems that tell of recordings which the archive fetches, one table for each."""

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path

from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from app.settings import ConfigError, Settings
from archive.bounds import Network, read_networks
from archive.mapping import FIELDS, Reading, Template
from archive.reach import Reach
from archive.webhook import PRESETS, WANTED, Webhook, needed

_NAME = re.compile(r"[a-z][a-z0-9]{0,31}")
_HOST = re.compile(r"(?:\*\.)?(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::\d{1,5})?")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
_SOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PUBLIC = re.compile(r"https?://[^/?#@\s]+(?:/[^?#\s]*)?")
_PREFIX = "ARCHIVE_WEBHOOK_"


def from_toml(path: Path, tables: object, environ: Mapping[str, str]) -> dict[str, Webhook]:
    """Read every `[[webhook]]`. Its secrets are `ARCHIVE_WEBHOOK_<NAME>_...`."""
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        raise ConfigError(str(path), "webhook", None, "must be tables, each under [[webhook]]")
    found: dict[str, Webhook] = {}
    for table in tables:
        name = table.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in found:
            problem = "must be up to 32 small letters and digits, and no other webhook's"
            raise ConfigError(str(path), "webhook", "name", problem)
        own = {key: value for key, value in environ.items() if key.startswith(_of(name))}
        settings = Settings(path, f"webhook.{name}", table, own)
        found[name] = _webhook(settings)
        settings.finish()
    for key in environ:
        if key.startswith(_PREFIX) and not key.startswith(tuple(map(_of, found))):
            raise ConfigError(f"environment, {key}", "webhook", None, "is of no webhook")
    return found


def _of(name: str) -> str:
    return f"{_PREFIX}{name.upper()}_"


def _webhook(settings: Settings) -> Webhook:
    kind = settings.parsed("kind", _kind)
    name = settings.text("name")
    delete_after = settings.truth("delete_after")
    secret, fetch_secret = settings.secret("secret"), settings.secret("fetch_secret")
    webhook = Webhook(
        name=name,
        kind=kind,
        source=settings.parsed("source", _source, name),
        reading=_reading(settings, kind),
        wanted={key: _templates(settings, key, kind) for key in WANTED},
        only=_only(settings, kind),
        reach=_reach(settings),
        delete_after=delete_after,
        public_url=settings.text("public_url", "").rstrip("/"),
        account=settings.text("account", ""),
        secret=secret,
        fetch_secret=fetch_secret or (secret if kind == "twilio" else ""),
        signature_header=settings.parsed("signature_header", _header, ""),
        senders=_networks(settings, "senders") or None,
    )
    _check(settings, webhook)
    return webhook


def _check(settings: Settings, webhook: Webhook) -> None:
    """What each kind cannot do without."""
    kind = webhook.kind
    if kind == "oreka" and webhook.senders is None:
        settings.fail("senders", "is needed: a recorder of this kind is known by its address alone")
    if kind != "oreka" and not webhook.secret:
        variable = settings.variable("secret")
        settings.fail("secret", f"set {variable} or {variable}_FILE")
    if kind == "telnyx" and not _is_key(webhook.secret):
        settings.fail("secret", "must be the public key of the account, as Telnyx shows it")
    if kind == "twilio" and not _PUBLIC.fullmatch(webhook.public_url):
        settings.fail("public_url", "say how Twilio reaches the ingest door: https://...")
    if kind in ("twilio", "vonage") and not webhook.account:
        settings.fail("account", "is needed: whom the recordings are fetched as")
    if kind == "vonage":
        _check_rsa(settings, webhook.fetch_secret)
    if webhook.delete_after and kind == "telnyx" and not webhook.fetch_secret:
        settings.fail("fetch_secret", "is needed to delete: a key of Telnyx's API")
    if webhook.delete_after and kind != "oreka" and not webhook.wanted["delete_url"]:
        settings.fail("delete_url", "is needed: where a recording is deleted")


def _check_rsa(settings: Settings, text: str) -> None:
    try:
        private = RSAKey.import_key(text).is_private
    except (JoseError, ValueError, TypeError):
        private = False
    if not private:
        settings.fail("fetch_secret", "must be the application's private key, as PEM")


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 32
    except (binascii.Error, ValueError):
        return False


def _reading(settings: Settings, kind: str) -> Reading:
    fields = {name: _templates(settings, name, kind) for name in FIELDS}
    words = settings.texts("words") or PRESETS[kind].get("words", ())
    try:
        return Reading(fields, (), Reading.from_texts({}, (), words).words)
    except ValueError as error:
        settings.fail("words", f"is wrong: {error}")


def _templates(settings: Settings, key: str, kind: str) -> tuple[Template, ...]:
    texts = settings.texts(key) or PRESETS[kind].get(key, ())
    if not texts and key in needed(kind):
        settings.fail(key, "is missing")
    try:
        found = tuple(map(Template.parse, texts))
    except ValueError as error:
        settings.fail(key, f"is wrong: {error}")
    if any(template.late for template in found):
        settings.fail(key, "is wrong: the audio is not there yet")
    return found


def _only(settings: Settings, kind: str) -> tuple[tuple[str, str], ...]:
    found = []
    for text in settings.texts("only") or PRESETS[kind].get("only", ()):
        name, sign, value = text.partition("=")
        if not (sign and name.strip()):
            settings.fail("only", "is written like event=recording.saved")
        found.append((name.strip(), value.strip()))
    return tuple(found)


def _reach(settings: Settings) -> Reach:
    hosts = [text.lower() for text in settings.texts("hosts", required=True)]
    if not all(map(_HOST.fullmatch, hosts)):
        settings.fail("hosts", "is a list of names like api.example.com, *.example.com or a:8443")
    return Reach(tuple(hosts), _networks(settings, "networks"), settings.truth("http"))


def _networks(settings: Settings, key: str) -> tuple[Network, ...]:
    try:
        return tuple(each for text in settings.texts(key) for each in read_networks(text))
    except ValueError as error:
        settings.fail(key, str(error))


def _kind(text: str) -> str:
    if text not in PRESETS:
        raise ValueError("must be one of " + ", ".join(PRESETS))
    return text


def _source(text: str) -> str:
    if not _SOURCE.fullmatch(text):
        raise ValueError("has 1 to 64 letters, digits, dots, dashes or underscores")
    return text


def _header(text: str) -> str:
    if text and not _HEADER.fullmatch(text):
        raise ValueError("must be the name of a header")
    return text
