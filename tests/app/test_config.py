"""The configuration: the example works, each key can be overridden, each mistake is named."""

import re
import shutil
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from app import values
from app.config import Config, ConfigError, find, load
from app.values import Address
from archive.recording import CallType
from archive.retention import Period
from storage.audio.formats import NAMES
from storage.roles import RIGHTS

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "config.toml"

S3 = {
    "ARCHIVE_OBJECTS_ENDPOINT": "https://s3.example.fi",
    "ARCHIVE_OBJECTS_ACCESS_KEY": "access",
    "ARCHIVE_OBJECTS_SECRET_KEY": "secret",
}

PROVIDER = {
    "ARCHIVE_SIGN_IN_ACCOUNTS": "provider",
    "ARCHIVE_SIGN_IN_ISSUER": "https://login.example.fi/realm",
    "ARCHIVE_SIGN_IN_CLIENT_ID": "archive",
    "ARCHIVE_SIGN_IN_CLIENT_SECRET": "secret",
    "ARCHIVE_SIGN_IN_GROUPS": "leads = supervisor",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return Path(shutil.copy(EXAMPLE, tmp_path / "config.toml"))


def edit(file: Path, pattern: str, new: str) -> None:
    text, sign, mappings = file.read_text().partition("[mapping.")
    text, count = re.subn(pattern, new, text, flags=re.MULTILINE)
    assert count == 1, f"{pattern} stands {count} times in the example"
    file.write_text(text + sign + mappings)


def every_key() -> list[tuple[str, str]]:
    document = tomllib.loads(EXAMPLE.read_text())
    document["retention.period"] = document["retention"].pop("period")
    del document["mapping"]  # tests/app/test_mappings.py
    return [(section, key) for section, table in document.items() for key in table]


def variable(section: str, key: str) -> str:
    return f"ARCHIVE_{section.replace('.', '_')}_{key}".upper()


def test_the_example_works_as_it_is() -> None:
    config = load(EXAMPLE, {})
    doors = config.doors
    assert [str(door.address) for door in (doors.ingest, doors.retrieval)] == [
        "127.0.0.1:8081",
        "127.0.0.1:8080",
    ]
    assert doors.operations.address == Address("127.0.0.1", 8082)
    assert config.path == EXAMPLE
    assert config.server.data_dir == ROOT / "var"
    assert config.keys.store == ROOT / "var" / "keys"
    assert config.database.embedded
    assert config.objects.embedded
    assert config.retention.zone.key == "Europe/Helsinki"
    assert config.retention.periods == {str(name): Period(years=1) for name in CallType}
    assert config.intake.max_bytes == 512 * 1024 * 1024
    assert config.intake.max_duration == 12 * 3600
    assert config.intake.allowed_formats == NAMES


def test_every_key_of_the_example_has_a_comment_above_it_or_above_its_group() -> None:
    commented = False
    for line in EXAMPLE.read_text().splitlines():
        if line.startswith("#"):
            commented = True
        elif not line:
            commented = False
        elif line.startswith("["):
            commented = commented or "period" in line
        else:
            assert commented or "=" not in line, f"no comment says what this is: {line}"
    assert commented


OVERRIDES: dict[tuple[str, str], tuple[str, Any]] = {
    ("server", "data_dir"): ("/srv/x", lambda c: c.server.data_dir == Path("/srv/x")),
    ("doors", "ingest"): ("[::1]:0", lambda c: c.doors.ingest.address == Address("::1", 0)),
    ("doors", "retrieval"): ("localhost:9001", lambda c: c.doors.retrieval.address.port == 9001),
    ("doors", "operations"): (
        "10.0.0.1:9002",
        lambda c: c.doors.operations.address.host == "10.0.0.1",
    ),
    ("doors", "retrieval_url"): (
        "https://calls.example.fi/",
        lambda c: c.doors.retrieval_url == "https://calls.example.fi",
    ),
    ("doors", "connections"): ("500", lambda c: c.doors.bears.connections == 500),
    ("doors", "connections_per_address"): ("9", lambda c: c.doors.bears.per_address == 9),
    ("doors", "proxies"): (
        "10.0.0.1, fd00::/8",
        lambda c: c.doors.bears.counted("10.0.0.1") == c.doors.bears.counted("fd12::1") == "",
    ),
    ("database", "url"): (
        "postgresql://a:b@db/calls",
        lambda c: c.database.url == "postgresql://a:b@db/calls" and not c.database.embedded,
    ),
    **{
        ("database", f"{role}_login"): (
            "postgresql://r:b@db/calls",
            lambda c, role=role: c.database.logins[role] == "postgresql://r:b@db/calls",
        )
        for role in RIGHTS
    },
    ("objects", "endpoint"): (
        "http://10.0.0.9:7480",
        lambda c: c.objects.endpoint == "http://10.0.0.9:7480" and not c.objects.embedded,
    ),
    ("objects", "bucket"): ("other-calls", lambda c: c.objects.bucket == "other-calls"),
    ("objects", "access_key"): ("mine", lambda c: c.objects.access_key == "mine"),
    ("objects", "secret_key"): ("hidden", lambda c: c.objects.secret_key == "hidden"),
    ("objects", "ca"): ("/etc/ca.pem", lambda c: c.objects.ca == Path("/etc/ca.pem")),
    ("objects", "region"): ("eu-north-1", lambda c: c.objects.region == "eu-north-1"),
    ("objects", "country"): ("NO", lambda c: c.objects.country == "NO"),
    ("objects", "replicas"): ("SE, DE", lambda c: c.objects.replicas == frozenset({"SE", "DE"})),
    ("keys", "store"): ("file:/mnt/ring", lambda c: c.keys.store == Path("/mnt/ring")),
    ("keys", "root_file"): ("/mnt/root", lambda c: c.keys.root_file == Path("/mnt/root")),
    ("retention", "timezone"): ("UTC", lambda c: c.retention.zone.key == "UTC"),
    ("intake", "max_bytes"): ("1000", lambda c: c.intake.max_bytes == 1000),
    ("intake", "max_duration"): ("PT1H30M5S", lambda c: c.intake.max_duration == 5405),
    ("intake", "max_concurrent"): ("3", lambda c: c.intake.max_concurrent == 3),
    ("intake", "allowed_formats"): (
        "wav, mp3",
        lambda c: c.intake.allowed_formats == frozenset({"wav", "mp3"}),
    ),
    ("intake", "expected_within"): (
        "PT26H",
        lambda c: c.intake.expected_within == timedelta(hours=26),
    ),
    ("jobs", "nightly"): ("15 2 * * *", lambda c: c.jobs.nightly == "15 2 * * *"),
    ("sign_in", "accounts"): ("both", lambda c: c.sign_in.local and c.sign_in.terms),
    ("sign_in", "idle"): ("PT5M", lambda c: c.sign_in.limits.idle == timedelta(minutes=5)),
    ("sign_in", "absolute"): ("PT1H", lambda c: c.sign_in.limits.absolute == timedelta(hours=1)),
    ("sign_in", "issuer"): (PROVIDER["ARCHIVE_SIGN_IN_ISSUER"], lambda c: not c.sign_in.local),
    ("sign_in", "client_id"): ("me", lambda c: c.sign_in.terms.client_id == "me"),
    ("sign_in", "client_secret"): ("hidden", lambda c: c.sign_in.terms.client_secret == "hidden"),
    ("sign_in", "algorithms"): ("ES256", lambda c: c.sign_in.terms.algorithms == {"ES256"}),
    ("sign_in", "scopes"): ("openid", lambda c: c.sign_in.terms.scopes == "openid"),
    ("sign_in", "groups_claim"): ("roles", lambda c: c.sign_in.terms.groups_claim == "roles"),
    ("sign_in", "acr"): ("phr, mfa", lambda c: c.sign_in.terms.acr == ("phr", "mfa")),
    ("sign_in", "amr"): ("hwk", lambda c: c.sign_in.terms.amr == ("hwk",)),
    ("sign_in", "groups"): (
        "a = auditor, b = supervisor queues:x|y teams:z",
        lambda c: c.sign_in.terms.grants[1].queues == ("x", "y"),
    ),
    ("access", "reason_for"): (
        "contract, other",
        lambda c: c.access.reason_for == {"contract", "other"},
    ),
    ("access", "recordings_per_hour"): (
        "20",
        lambda c: c.access.recordings_per_hour == 20,
    ),
    **{
        ("retention.period", str(name)): (
            "P2Y6M",
            lambda c, name=name: c.retention.periods[name] == Period(years=2, months=6),
        )
        for name in CallType
    },
}
for _door in ("ingest", "retrieval", "operations"):
    for _part in ("tls_cert", "tls_key", "tls_client_ca"):
        OVERRIDES["doors", f"{_door}_{_part}"] = (
            "/etc/a.pem",
            lambda c, d=_door, p=_part: getattr(getattr(c.doors, d), p) == Path("/etc/a.pem"),
        )


@pytest.mark.parametrize(("section", "key"), every_key())
def test_each_key_can_be_overridden_by_the_environment(section: str, key: str) -> None:
    value, holds = OVERRIDES[section, key]
    environ = dict({"objects": S3, "sign_in": PROVIDER}.get(section, {}))
    if section == "database" and key != "url":  # the embedded one has logins of its own
        environ["ARCHIVE_DATABASE_URL"] = ""
    if "_tls_" in key:  # a certificate and its key come together
        door = key.split("_")[0]
        environ |= {variable(section, f"{door}_tls_{part}"): value for part in ("cert", "key")}
    config = load(EXAMPLE, environ | {variable(section, key): value})
    assert holds(config)


def test_variables_of_others_are_left_alone() -> None:
    others = {"ARCHIVE_URL": "x", "ARCHIVE_TOKEN": "y", "HOME": "/", "ARCHIVE": "z"}
    assert load(EXAMPLE, others) == load(EXAMPLE, {})


def refused(file: Path, environ: dict[str, str] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(file, environ or {})
    return caught.value


_OPTIONAL = {"access_key", "secret_key", "client_secret", "groups", "acr", "amr"} | {
    key for _, key in every_key() if "_tls_" in key
}


@pytest.mark.parametrize(
    ("section", "key"), [each for each in every_key() if each[1] not in _OPTIONAL]
)
def test_a_missing_key_is_named_with_file_and_section(file: Path, section: str, key: str) -> None:
    edit(file, rf"^{key} = .*\n", "")
    assert str(refused(file)) == f"{file}: [{section}] {key}: is missing"


@pytest.mark.parametrize("key", sorted(_OPTIONAL))
def test_secrets_and_tls_may_be_left_out(file: Path, key: str) -> None:
    edit(file, rf"^{key} = .*\n", "")
    assert load(file, {}).doors == load(EXAMPLE, {}).doors


def test_a_key_that_the_environment_gives_is_not_missing(file: Path) -> None:
    edit(file, r"^nightly = .*\n", "")
    assert load(file, {"ARCHIVE_JOBS_NIGHTLY": "0 1 * * *"}).jobs.nightly == "0 1 * * *"


def test_a_missing_section_is_named(file: Path) -> None:
    text = file.read_text()
    file.write_text(text[: text.index("[jobs]")])
    assert str(refused(file)) == f"{file}: [jobs] nightly: is missing"


@pytest.mark.parametrize("section", sorted({section for section, _ in every_key()}))
def test_an_unknown_key_is_named_with_file_and_section(file: Path, section: str) -> None:
    edit(file, rf"^\[{section}\]$", f"[{section}]\nnovelty = 1")
    assert str(refused(file)).startswith(f"{file}: [{section}] novelty: is no key")


@pytest.mark.parametrize("section", sorted({section for section, _ in every_key()}))
def test_an_unknown_key_of_the_environment_is_named(section: str) -> None:
    name = variable(section, "novelty")
    found = str(refused(EXAMPLE, {name: "1"}))
    assert found.startswith(f"environment, {name}: [{section}] novelty: is no key")


def test_an_unknown_section_is_named(file: Path) -> None:
    file.write_text(file.read_text() + "\n[cache]\nsize = 1\n")
    assert str(refused(file)) == f"{file}: [cache]: is no section; take it out"


def test_a_value_in_place_of_a_section_is_refused(file: Path) -> None:
    file.write_text("jobs = 1\n")
    assert str(refused(file)) == f"{file}: [jobs]: must be a section, not a value"


def test_a_file_that_is_not_there_or_not_toml_is_named(file: Path) -> None:
    assert str(refused(file.parent / "none.toml")).startswith(f"{file.parent}/none.toml: cannot be")
    file.write_text("[server\n")
    assert str(refused(file)).startswith(f"{file}: is not TOML")
    file.write_bytes(b"\xff\xfe")
    assert str(refused(file)).startswith(f"{file}: is not TOML")


WRONG = [
    ("server", "data_dir", '""'),
    ("server", "data_dir", "1"),
    ("doors", "ingest", '"8081"'),
    ("doors", "ingest", '"127.0.0.1"'),
    ("doors", "ingest", '"127.0.0.1:70000"'),
    ("doors", "ingest", '"::1:8081"'),
    ("doors", "ingest", '"http://127.0.0.1:8081"'),
    ("doors", "retrieval", '"127.0.0.1:8081"'),
    ("doors", "ingest", '"unix:."'),
    ("doors", "ingest", f'"unix:/{"x" * 107}"'),
    ("doors", "retrieval_url", '"calls.example.fi"'),
    ("doors", "connections", "0"),
    ("doors", "connections_per_address", '"many"'),
    ("doors", "proxies", '"nginx"'),
    ("doors", "proxies", '"10.0.0.1/8"'),
    ("doors", "retrieval_url", '"ftp://calls.example.fi"'),
    ("doors", "retrieval_url", '"https://calls.example.fi/path"'),
    ("doors", "retrieval_url", '"https://me@calls.example.fi"'),
    ("doors", "retrieval_url", '"https://calls.example.fi:port"'),
    ("doors", "retrieval_url", '"https://[calls"'),
    ("database", "url", '"mysql://db/calls"'),
    ("database", "url", '""'),
    ("database", "jobs_login", '"mysql://db/calls"'),
    ("database", "jobs_login", '"embedded"'),
    ("database", "url", '"postgresql://[db"'),
    ("database", "url", '"postgresql://u:pa/ss@127.0.0.1:1/calls"'),
    ("database", "url", '"postgresql://u:12/ss@127.0.0.1:1/calls"'),
    ("database", "url", '"postgresql://u:pa#ss@127.0.0.1:1/calls"'),
    ("database", "url", '"postgresql://u:12#ss@127.0.0.1:1/calls"'),
    ("database", "url", '"postgresql://u:p%ZZ@127.0.0.1:1/calls"'),
    ("database", "jobs_login", '"postgresql://127.0.0.1:99999/calls"'),
    ("database", "url", '"postgresql://db1:1,db2:port/calls"'),
    ("objects", "endpoint", '"s3.example.fi"'),
    ("objects", "endpoint", '"https://s3.example.fi/bucket"'),
    ("objects", "bucket", '"ab"'),
    ("objects", "bucket", '"Calls"'),
    ("objects", "bucket", '"calls/x"'),
    ("objects", "region", '""'),
    ("objects", "country", '"US"'),
    ("objects", "country", '"GB"'),
    ("objects", "country", '"fi"'),
    ("objects", "country", '""'),
    ("objects", "replicas", '["SE", "US"]'),
    ("objects", "replicas", '["se"]'),
    ("objects", "replicas", '"SE"'),
    ("objects", "replicas", "true"),
    ("keys", "store", '"keys"'),
    ("keys", "store", '"file:"'),
    ("keys", "store", '"vault:https://example.fi"'),
    ("keys", "root_file", '""'),
    ("server", "data_dir", '"~nobodyhere/var"'),
    ("doors", "ingest", '"unix:~nobodyhere/socket"'),
    ("doors", "ingest_tls_cert", '"~nobodyhere/cert.pem"'),
    ("keys", "store", '"file:~nobodyhere/keys"'),
    ("keys", "root_file", '"~nobodyhere/root.key"'),
    ("retention", "timezone", '"Europe/Nowhere"'),
    ("retention", "timezone", '"../../etc/passwd"'),
    ("retention", "timezone", '""'),
    ("retention.period", "contract", '"1Y"'),
    ("retention.period", "contract", '"P0Y"'),
    ("retention.period", "contract", "365"),
    ("intake", "max_bytes", "0"),
    ("intake", "max_bytes", "-1"),
    ("intake", "max_bytes", "5_000_000_001"),
    ("intake", "max_bytes", "true"),
    ("intake", "max_bytes", '"512 MiB"'),
    ("intake", "max_bytes", '"512"'),
    ("intake", "max_duration", '"12H"'),
    ("intake", "max_duration", '"PT0S"'),
    ("intake", "max_duration", '"PT"'),
    ("intake", "max_duration", '"P1D"'),
    ("intake", "max_concurrent", "0"),
    ("intake", "allowed_formats", "[]"),
    ("intake", "allowed_formats", '["wav", "wma"]'),
    ("intake", "allowed_formats", '"wav"'),
    ("intake", "allowed_formats", "[1]"),
    ("jobs", "nightly", '"1:30"'),
    ("jobs", "nightly", '"99 1 * * *"'),
    ("jobs", "nightly", '"30 3 * * *"'),
    ("jobs", "nightly", '"0 * * * *"'),
    ("jobs", "nightly", '"0 1-4 * * *"'),
    ("jobs", "nightly", '"0 */3 * * *"'),
    ("jobs", "nightly", '"30 1 30 2 *"'),
    ("jobs", "nightly", '"30 1 * * 0"'),
    ("access", "reason_for", '["chat"]'),
    ("access", "reason_for", '"contract"'),
    ("access", "recordings_per_hour", "0"),
    ("access", "recordings_per_hour", "10001"),
    ("sign_in", "accounts", '"none"'),
    ("sign_in", "idle", '"PT9H"'),
    ("sign_in", "absolute", '"8 hours"'),
    ("sign_in", "issuer", '"http://login.example.fi"'),
    ("sign_in", "algorithms", '["none"]'),
    ("sign_in", "algorithms", '["RS256", "HS256"]'),
    ("sign_in", "algorithms", "[]"),
    ("sign_in", "acr", '["phr mfa"]'),
    ("sign_in", "amr", '[""]'),
    ("sign_in", "groups", '["leads"]'),
    ("sign_in", "groups", '["pbx = uploader"]'),
    ("sign_in", "groups", '["a = auditor queues:x"]'),
    ("sign_in", "groups", '["a = supervisor call_types:chat"]'),
    ("sign_in", "groups", '["a = supervisor queues:|"]'),
    ("sign_in", "groups", '["a = supervisor anything:x"]'),
]


@pytest.mark.parametrize("key", ["issuer", "client_id", "client_secret", "groups"])
def test_a_provider_is_there_whole_or_not_at_all(key: str) -> None:
    environ = {name: text for name, text in PROVIDER.items() if not name.endswith(key.upper())}
    with pytest.raises(ConfigError) as caught:
        load(EXAMPLE, environ)
    assert (caught.value.section, caught.value.key) == ("sign_in", key)
    with pytest.raises(ConfigError, match="accounts"):
        load(EXAMPLE, {**PROVIDER, "ARCHIVE_SIGN_IN_ACCOUNTS": "local"})


@pytest.mark.parametrize(("section", "key", "value"), WRONG)
def test_a_wrong_value_is_named_and_not_repeated(
    file: Path, section: str, key: str, value: str
) -> None:
    edit(file, rf"^{key} = .*", f"{key} = {value}")
    error = refused(file)
    assert (error.where, error.section, error.key) == (str(file), section, key)
    assert error.problem.startswith(("must", "is", "falls", "a period", "networks are"))
    assert value not in error.problem or value in {"1", "0"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ARCHIVE_INTAKE_MAX_BYTES", "many"),
        ("ARCHIVE_INTAKE_MAX_BYTES", "\u0661\u0662"),
        ("ARCHIVE_INTAKE_ALLOWED_FORMATS", " , "),
        ("ARCHIVE_DOORS_INGEST", ""),
        ("ARCHIVE_RETENTION_PERIOD_OTHER", "forever"),
    ],
)
def test_a_wrong_value_of_the_environment_is_named(name: str, value: str) -> None:
    assert refused(EXAMPLE, {name: value}).where == f"environment, {name}"


def test_the_home_of_nobody_is_named_wherever_a_path_may_stand(file: Path) -> None:
    nobody = "~nobodyhere/x"
    named = refused(file, {"ARCHIVE_DATABASE_URL_FILE": nobody})
    assert str(named).startswith("environment, ARCHIVE_DATABASE_URL_FILE: [database] url: the file")
    assert str(refused(Path(nobody))).startswith(f"{nobody}: must begin with the home")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p%2Fs%23@db:5432/calls?sslmode=verify-full",
        "postgresql://u:p@db1:5432,[::1]:5433,db3/calls",
        "postgres:///calls?host=/run/postgresql&user=archive%40site",
    ],
)
def test_a_url_of_the_database_may_have_all_that_the_driver_knows(url: str) -> None:
    assert load(EXAMPLE, {"ARCHIVE_DATABASE_URL": url}).database.url == url


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
def test_a_door_on_every_address_must_say_how_people_reach_it(host: str) -> None:
    everywhere = {"ARCHIVE_DOORS_RETRIEVAL": f"{host}:8080"}
    assert refused(EXAMPLE, everywhere).key == "retrieval_url"
    named = everywhere | {"ARCHIVE_DOORS_RETRIEVAL_URL": "https://calls.example.fi"}
    assert load(EXAMPLE, named).doors.retrieval_url == "https://calls.example.fi"


def test_doors_may_all_let_the_system_choose_a_port() -> None:
    chosen = {variable("doors", name): "127.0.0.1:0" for name in ("ingest", "retrieval")}
    assert load(EXAMPLE, chosen).doors.retrieval.address.port == 0


def test_a_door_may_be_a_unix_socket_whose_path_starts_at_the_file(file: Path) -> None:
    edit(file, r"^ingest = .*", 'ingest = "unix:run/ingest.sock"')
    door = load(file, {}).doors.ingest
    assert door.address == Address(socket=file.parent / "run/ingest.sock")
    assert str(door.address) == f"unix:{file.parent}/run/ingest.sock"
    edit(file, r"^operations = .*", 'operations = "unix:run/ingest.sock"')
    assert refused(file).key == "operations"


def test_a_retrieval_door_on_a_unix_socket_must_say_how_people_reach_it() -> None:
    there = {"ARCHIVE_DOORS_RETRIEVAL": "unix:/run/archive/retrieval.sock"}
    assert refused(EXAMPLE, there).key == "retrieval_url"


@pytest.mark.parametrize(
    ("given", "missing"), [("cert", "key"), ("key", "cert"), ("client_ca", "cert")]
)
def test_half_of_tls_is_refused(given: str, missing: str) -> None:
    error = refused(EXAMPLE, {f"ARCHIVE_DOORS_INGEST_TLS_{given.upper()}": "/etc/a.pem"})
    assert error.key == f"ingest_tls_{missing}"


@pytest.mark.parametrize(
    ("section", "key"),
    [("objects", "access_key"), ("objects", "secret_key"), ("sign_in", "client_secret")],
)
def test_a_secret_in_the_file_is_refused(file: Path, section: str, key: str) -> None:
    edit(file, rf"^{key} = .*", f'{key} = "s3cr3t-value"')
    error = refused(file)
    assert (error.where, error.section, error.key) == (str(file), section, key)
    assert f"{variable(section, key)}_FILE" in str(error)
    assert "s3cr3t" not in str(error)


@pytest.mark.parametrize(
    "url", ["postgresql://a:s3cr3t@db/calls", "postgresql://db/calls?user=a&password=s3cr3t"]
)
def test_a_password_in_the_file_is_refused(file: Path, url: str) -> None:
    edit(file, r"^url = .*", f'url = "{url}"')
    error = refused(file)
    assert error.key == "url"
    assert "ARCHIVE_DATABASE_URL_FILE" in str(error)
    assert "s3cr3t" not in str(error)


def test_a_part_may_know_its_own_login_alone() -> None:
    login = {"ARCHIVE_DATABASE_INGEST_LOGIN": "postgresql://archive_ingest:p@db/calls"}
    assert refused(EXAMPLE, login).key == "url"  # embedded
    alone = load(EXAMPLE, login | {"ARCHIVE_DATABASE_URL": ""}).database
    assert not alone.embedded
    assert [role for role, url in alone.logins.items() if url] == ["ingest"]
    assert "archive_ingest" not in repr(alone)


def test_a_database_without_a_password_may_stand_in_the_file(file: Path) -> None:
    edit(file, r"^url = .*", 'url = "postgresql://archive@db/calls?sslmode=verify-full"')
    assert load(file, {}).database.url.endswith("verify-full")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ARCHIVE_DATABASE_URL", "postgresql://a:b@db/calls"),
        ("ARCHIVE_OBJECTS_ACCESS_KEY", "mine"),
        ("ARCHIVE_OBJECTS_SECRET_KEY", "hidden"),
    ],
)
def test_a_secret_may_come_from_a_file(tmp_path: Path, name: str, value: str) -> None:
    held = tmp_path / "held"
    held.write_text(value + "\n")
    environ = {key: text for key, text in S3.items() if key != name}
    config = load(EXAMPLE, environ | {f"{name}_FILE": str(held)})
    kept = {config.database.url, config.objects.access_key, config.objects.secret_key}
    assert value in kept

    both = refused(EXAMPLE, S3 | {name: value, f"{name}_FILE": str(held)})
    assert "not both" in str(both)
    empty = load(EXAMPLE, environ | {name: "", f"{name}_FILE": str(held)})
    assert value in {empty.database.url, empty.objects.access_key, empty.objects.secret_key}
    held.write_text("\n")
    assert "is empty" in str(refused(EXAMPLE, environ | {f"{name}_FILE": str(held)}))
    held.unlink()
    error = refused(EXAMPLE, environ | {f"{name}_FILE": str(held)})
    assert error.where == f"environment, {name}_FILE"
    assert "cannot be read" in str(error)


def test_what_is_no_secret_has_no_file() -> None:
    assert refused(EXAMPLE, {"ARCHIVE_JOBS_NIGHTLY_FILE": "/etc/cron"}).key == "nightly_file"


@pytest.mark.parametrize("key", ["ACCESS_KEY", "SECRET_KEY"])
def test_a_store_of_ones_own_needs_both_keys_and_the_embedded_one_none(key: str) -> None:
    name = f"ARCHIVE_OBJECTS_{key}"
    without = {other: text for other, text in S3.items() if other != name}
    assert f"set {name} or {name}_FILE" in str(refused(EXAMPLE, without))
    assert "makes its own" in str(refused(EXAMPLE, {name: "mine"}))


def test_secrets_are_not_printed() -> None:
    secrets = {"ARCHIVE_DATABASE_URL": "postgresql://a:s3cr3t@db/calls"}
    secrets |= S3 | {"ARCHIVE_OBJECTS_SECRET_KEY": "s3cr3t"}
    assert "s3cr3t" not in repr(load(EXAMPLE, secrets))


def test_relative_paths_start_at_the_file_and_keys_at_the_data(file: Path) -> None:
    here = file.parent
    environ = {"ARCHIVE_OBJECTS_CA": "ca.pem", "ARCHIVE_KEYS_STORE": "file:ring"} | S3
    config = load(file, environ | {"ARCHIVE_SERVER_DATA_DIR": "data"})
    assert config.server.data_dir == here / "data"
    assert config.objects.ca == here / "ca.pem"
    assert config.keys.store == here / "data" / "ring"
    assert config.keys.root_file == here / "data" / "root.key"


def test_the_file_is_the_named_one_or_the_one_here_or_the_example(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    assert find(None) == file
    assert find(EXAMPLE) == EXAMPLE
    assert find(Path("config.toml")) == file
    file.unlink()
    assert find(None) == EXAMPLE


def test_reading_makes_nothing(file: Path) -> None:
    load(file, {})
    assert list(file.parent.iterdir()) == [file]


NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "hours"),
    [
        ("UTC", set()),
        ("Asia/Tokyo", set()),
        ("Europe/Helsinki", {3}),
        ("Europe/Dublin", {1}),
        ("Atlantic/Azores", {0}),
        ("America/New_York", {1, 2}),
        ("Australia/Lord_Howe", {1, 2}),
        ("America/Nuuk", {23}),
        ("Africa/Cairo", {0, 23}),
    ],
)
def test_the_hours_that_clock_changes_touch(name: str, hours: set[int]) -> None:
    assert values.changed_hours(ZoneInfo(name), NOW) == hours


def test_no_night_in_an_accepted_hour_is_skipped_or_doubled() -> None:
    zone = ZoneInfo("Europe/Helsinki")
    for hour in set(range(24)) - values.changed_hours(zone, NOW):
        wall = NOW.replace(hour=hour, minute=30, tzinfo=None)
        for _ in range(366):
            wall += timedelta(days=1)
            first = wall.replace(tzinfo=zone).astimezone(UTC)
            second = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
            assert first == second
            assert first.astimezone(zone).replace(tzinfo=None) == wall


def test_the_nightly_job_may_run_in_an_hour_that_the_zone_of_the_archive_leaves_alone() -> None:
    environ = {"ARCHIVE_RETENTION_TIMEZONE": "UTC", "ARCHIVE_JOBS_NIGHTLY": "30 3 * * mon-fri"}
    config: Config = load(EXAMPLE, environ)
    assert config.jobs.nightly == "30 3 * * mon-fri"
