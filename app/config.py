"""The configuration: read once at start, from one file and the environment, into typed values.

`config.toml` at the root is the documented example and works as it is. Each key can be overridden
by `ARCHIVE_<SECTION>_<KEY>`; secrets come from there, or from a file that `..._FILE` names, alone.
Whatever is unknown, missing or impossible is a ConfigError before anything is started. Nothing is
opened here but the file and the secrets: whether the rest is there, `archive check` says.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from app import landing_settings, mappings, values, webhooks
from app.doors import Door, Doors
from app.landing_settings import Place
from app.logins import Database
from app.object_store import Objects
from app.settings import ConfigError, Settings
from app.sign_in_settings import SigningIn
from archive.listening import Rules
from archive.mapping import Reading
from archive.recording import CallType
from archive.retention import Period, Policy
from archive.webhook import Webhook
from storage.audio.formats import NAMES
from storage.vault import Limits

__all__ = ["Config", "ConfigError", "Door", "Doors", "find", "load"]

LARGEST = 5_000_000_000
"""The most bytes that a sealed object may hold: S3 takes 5 GiB in one PUT."""

MOST_HEARD = 10_000
"""The largest budget of a listener: its recordings stand in one row."""

SECTIONS = (
    "server",
    "doors",
    "database",
    "objects",
    "keys",
    "retention.period",
    "retention",
    "intake",
    "jobs",
    "access",
    "sign_in",
    *map(mappings.section, (*mappings.WAYS, *mappings.BUCKETS)),
)


@dataclass(frozen=True, slots=True)
class Server:
    """`data_dir`: everything that the archive itself keeps on disk lies below it."""

    data_dir: Path

    @classmethod
    def from_toml(cls, settings: Settings) -> "Server":
        """Read `[server]`."""
        return cls(settings.path("data_dir"))


@dataclass(frozen=True, slots=True)
class Keys:
    """`store`: the folder of the key ring. `root_file`: the root that seals it."""

    store: Path
    root_file: Path

    @classmethod
    def from_toml(cls, settings: Settings, data_dir: Path) -> "Keys":
        """Read `[keys]`; both paths are relative to `data_dir`."""
        store = settings.parsed("store", values.key_store)
        return cls(data_dir / store, settings.path("root_file", data_dir))


@dataclass(frozen=True, slots=True)
class Jobs:
    """`nightly`: a cron expression in the archive's time zone."""

    nightly: str

    @classmethod
    def from_toml(cls, settings: Settings, timezone: ZoneInfo) -> "Jobs":
        """Read `[jobs]`."""
        return cls(settings.parsed("nightly", lambda text: values.nightly(text, timezone)))


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration; `path` is the file that it was read from.

    `retention` is what is wanted; what is in force, `storage.policy` knows. `access`: what hearing
    a recording asks for besides the right to.
    """

    path: Path
    server: Server
    doors: Doors
    database: Database
    objects: Objects
    keys: Keys
    retention: Policy
    intake: Limits
    jobs: Jobs
    access: Rules
    sign_in: SigningIn
    mappings: Mapping[str, Reading]
    webhooks: Mapping[str, Webhook]
    landings: tuple[Place, ...]

    @classmethod
    def from_toml(
        cls, path: Path, document: Mapping[str, object], environ: Mapping[str, str]
    ) -> "Config":
        """Turn a parsed file and the environment into values, or raise ConfigError."""
        tables = dict(document)
        told = tables.pop("webhook", [])
        landing = landing_settings.sections(path, tables, environ)
        sections = _sections(path, tables, environ)
        server = Server.from_toml(sections["server"])
        retention = _retention(sections["retention"], sections["retention.period"])
        config = cls(
            path=path,
            server=server,
            doors=Doors.from_toml(sections["doors"]),
            database=Database.from_toml(sections["database"]),
            objects=Objects.from_toml(sections["objects"]),
            keys=Keys.from_toml(sections["keys"], server.data_dir),
            retention=retention,
            intake=_intake(sections["intake"]),
            jobs=Jobs.from_toml(sections["jobs"], retention.zone),
            access=_access(sections["access"]),
            sign_in=SigningIn.from_toml(sections["sign_in"]),
            mappings=(ways := mappings.from_toml(sections)),
            webhooks=webhooks.from_toml(path, told, environ),
            landings=tuple(
                Place.from_toml(settings, name, Objects.from_toml(settings), ways)
                for name, settings in landing.items()
            ),
        )
        landing_settings.check_apart(config.landings, config.objects, landing)
        for settings in (*sections.values(), *landing.values()):
            settings.finish()
        return config


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Read the configuration from the file that `find` names. Raises ConfigError."""
    found = find(path)
    try:
        document = tomllib.loads(found.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(found), "", None, f"cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(found), "", None, f"is not TOML: {error}") from None
    return Config.from_toml(found, document, environ)


def find(path: Path | None) -> Path:
    """The file that was named, else `config.toml` here, else the one beside the program.

    Raises ConfigError for a home that is not known.
    """
    here = Path.cwd() / "config.toml"
    if path is not None:
        try:
            return values.path(str(path)).absolute()
        except ValueError as error:
            raise ConfigError(str(path), "", None, str(error)) from None
    return here if here.is_file() else Path(__file__).parent.parent / "config.toml"


def _retention(settings: Settings, periods: Settings) -> Policy:
    """Read `[retention]` and `[retention.period]`, where each call type has its line."""
    return Policy(
        settings.parsed("timezone", values.zone),
        {str(name): periods.parsed(name, Period.parse) for name in CallType},
    )


def _intake(settings: Settings) -> Limits:
    return Limits(
        max_bytes=settings.whole("max_bytes", 1, LARGEST),
        max_duration=settings.parsed("max_duration", values.seconds),
        max_concurrent=settings.whole("max_concurrent", 1, 10_000),
        allowed_formats=settings.words("allowed_formats", NAMES),
        expected_within=timedelta(seconds=settings.parsed("expected_within", values.seconds)),
    )


def _access(settings: Settings) -> Rules:
    types = frozenset(str(name) for name in CallType)
    reasons = settings.words("reason_for", types, least=0)
    return Rules(reasons, settings.whole("recordings_per_hour", 1, MOST_HEARD))


def _sections(
    path: Path, document: Mapping[str, object], environ: Mapping[str, str]
) -> dict[str, Settings]:
    """One Settings for each section, each with those variables that are its own."""
    tables = _flat(document)
    known = [*SECTIONS, *_own_mappings(tables, document.get(landing_settings.TABLE))]
    for name in tables:
        if name not in (*known, landing_settings.TABLE):
            raise ConfigError(str(path), name, None, "is no section; take it out")
    left = dict(environ)
    sections = {}
    # The longest first: the variables of freeswitch_s3 begin like those of freeswitch.
    for name in sorted(known, key=len, reverse=True):
        table = tables.get(name, {})
        if not isinstance(table, dict):
            raise ConfigError(str(path), name, None, "must be a section, not a value")
        prefix = f"ARCHIVE_{name.replace('.', '_')}_".upper()
        own = {key: left.pop(key) for key in list(left) if key.startswith(prefix)}
        sections[name] = Settings(path, name, table, own)
    return sections


def _own_mappings(tables: Mapping[str, object], landing: object) -> set[str]:
    """The mappings of a site's own that its landing buckets name."""
    found = landing if isinstance(landing, list) else []
    named = {str(each.get("mapping")) for each in found if isinstance(each, dict)}
    return {mappings.section(name) for name in named} & set(tables) - set(SECTIONS)


def _flat(document: Mapping[str, object]) -> dict[str, object]:
    """The tables by the names that their sections have, those within others too."""
    tables = dict(document)
    retention, ways = tables.get("retention"), tables.pop("mapping", {})
    if isinstance(retention, dict):
        tables["retention"] = {key: value for key, value in retention.items() if key != "period"}
        tables["retention.period"] = retention.get("period", {})
    if not isinstance(ways, dict):
        return {**tables, "mapping": ways}
    return {**tables, **{mappings.section(way): table for way, table in ways.items()}}
