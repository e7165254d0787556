"""`[[webhook]]`: what the documents show works, and what is wrong is named."""

import re
import tomllib
from pathlib import Path

import pytest

from app.config import ConfigError, load
from archive.webhook import PRESETS
from tests.web import vendors
from tests.web.vendors import Vendor

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "config.toml"
AT = Vendor(port=8443)


def read(folder: Path, text: str, environ: dict[str, str]) -> dict[str, object]:
    file = folder / "config.toml"
    file.write_text(EXAMPLE.read_text() + text)
    return dict(load(file, environ).webhooks)


def test_without_any_there_is_none() -> None:
    assert load(EXAMPLE, {}).webhooks == {}


def test_every_kind_can_be_configured(tmp_path: Path) -> None:
    found = read(tmp_path, vendors.config(AT), vendors.environ())
    assert {hook.kind for hook in found.values()} == set(PRESETS)  # type: ignore[attr-defined]
    assert vendors.TWILIO_TOKEN not in repr(found)
    assert vendors.JSON_SECRET not in repr(found)
    assert "PRIVATE KEY" not in repr(found)


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    environ = vendors.environ()
    (tmp_path / "token").write_text(environ.pop("ARCHIVE_WEBHOOK_TWILIO_SECRET") + "\n")
    environ["ARCHIVE_WEBHOOK_TWILIO_SECRET_FILE"] = "token"
    twilio = read(tmp_path, vendors.config(AT), environ)["twilio"]
    assert twilio.secret == vendors.TWILIO_TOKEN  # type: ignore[attr-defined]


WRONG = [
    ('name = "own"', 'name = "O wn"', {}, "name: must be up to 32"),
    ('name = "own"', 'name = "twilio"', {}, "name: must be up to 32"),
    ('name = "own"', 'name = "own"\nnmae = 1', {}, "nmae: is no key"),
    ('kind = "json"', 'kind = "xml"', {}, "kind: must be one of"),
    ('source = "recorder"', 'source = "a b"', {}, "source: has 1 to 64"),
    ('url = ["{notice.download_url}"]', "", {}, "url: is missing"),
    ('id = ["{notice.id}"]', "id = []", {}, "id: is missing"),
    ('caller = ["{notice.call.from}"]', 'caller = ["{tag.title}"]', {}, "caller: is wrong"),
    ('caller = ["{notice.call.from}"]', 'caller = ["{x"]', {}, "caller: is wrong"),
    ('words = ["support=', 'words = ["support', {}, "words: is wrong"),
    ('only = ["event=', 'only = ["event', {}, "only: is written like"),
    ('hosts = ["127.0.0.1:8443"]', "", {}, "hosts: is missing"),
    ('hosts = ["127.0.0.1:8443"]', 'hosts = ["https://a.b"]', {}, "hosts: is a list of names"),
    ('networks = ["127.0.0.0/8"]', 'networks = ["127.0.0.1/8"]', {}, "networks: networks are"),
    ("http = true", 'http = "yes"', {}, "http: must be true or false"),
    (
        "http = true",
        'http = true\nsecret = "x"',
        {"ARCHIVE_WEBHOOK_OWN_SECRET": None},
        "secret: a secret has no place",
    ),
    ("http = true", "http = true\ndelete_after = true", {}, "delete_url: is needed"),
    ("", "", {"ARCHIVE_WEBHOOK_OWN_SECRET": ""}, "secret: set ARCHIVE_WEBHOOK_OWN_SECRET"),
    ("", "", {"ARCHIVE_WEBHOOK_ELSE_SECRET": "x"}, "is of no webhook"),
    ("", "", {"ARCHIVE_WEBHOOK_OWN_SECRT": "x"}, "secrt: is no key"),
    ("", "", {"ARCHIVE_WEBHOOK_TELNYX_SECRET": "x"}, "secret: must be the public key"),
    ("", "", {"ARCHIVE_WEBHOOK_VONAGE_FETCH_SECRET": "x"}, "fetch_secret: must be the application"),
    ("", "", {"ARCHIVE_WEBHOOK_TWILIO_PUBLIC_URL": "x"}, "public_url: say how Twilio"),
    ("", "", {"ARCHIVE_WEBHOOK_VONAGE_ACCOUNT": ""}, "account: is needed"),
    ("", "", {"ARCHIVE_WEBHOOK_OREKA_SENDERS": ""}, "senders: is needed"),
    ("", "", {"ARCHIVE_WEBHOOK_TELNYX_DELETE_AFTER": "true"}, "fetch_secret: is needed to delete"),
]


@pytest.mark.parametrize(("old", "new", "more", "problem"), WRONG)
def test_what_is_wrong_is_named(
    tmp_path: Path, old: str, new: str, more: dict[str, str | None], problem: str
) -> None:
    text = vendors.config(AT)
    at = text.index(old, text.index('name = "own"')) if old else 0
    text = text[:at] + new + text[at + len(old) :]
    with pytest.raises(ConfigError, match=re.escape(problem)):
        environ = {**vendors.environ(), **more}
        read(tmp_path, text, {key: value for key, value in environ.items() if value is not None})


def test_webhook_as_one_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be tables, each under"):
        read(tmp_path, '\n[webhook]\nname = "x"\n', {})


def _shown() -> list[tuple[str, str]]:
    found = []
    for page in sorted((ROOT / "docs/telephony").glob("*.md")):
        for block in re.findall(r"((?:^    .*\n|^\n)+)", page.read_text(), re.MULTILINE):
            if "[[webhook]]" in block:
                found.append((page.name, re.sub("^    ", "", block, flags=re.MULTILINE)))
    return found


@pytest.mark.parametrize(("page", "block"), _shown(), ids=[page for page, _ in _shown()])
def test_what_the_pages_show_works(tmp_path: Path, page: str, block: str) -> None:
    secrets, environ = vendors.environ(), {}
    for table in tomllib.loads(block)["webhook"]:
        kind = {"json": "own"}.get(table["kind"], table["kind"])
        for key in ("SECRET", "FETCH_SECRET"):
            if value := secrets.get(f"ARCHIVE_WEBHOOK_{kind.upper()}_{key}"):
                environ[f"ARCHIVE_WEBHOOK_{table['name'].upper()}_{key}"] = value
        if table["kind"] == "telnyx" and table.get("delete_after"):
            environ[f"ARCHIVE_WEBHOOK_{table['name'].upper()}_FETCH_SECRET"] = "KEY"
    assert read(tmp_path, "\n" + block, environ)
