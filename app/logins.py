"""`[database]`: where PostgreSQL is, and as whom the owner and the parts of the service log in."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from app import values
from app.settings import Settings
from storage.roles import RIGHTS


@dataclass(frozen=True, slots=True)
class Database:
    """Where PostgreSQL is: `url` as the owner of the tables, or `embedded`; `logins` as the roles.

    "" is not known here. They may hold passwords and are never printed.
    """

    url: str = field(repr=False)
    logins: Mapping[str, str] = field(repr=False)

    @property
    def embedded(self) -> bool:
        return self.url == values.EMBEDDED

    @classmethod
    def from_toml(cls, settings: Settings) -> "Database":
        """Read `[database]`."""
        url = _database_url(settings, "url")
        logins = {role: _database_url(settings, f"{role}_login") for role in RIGHTS}
        for role in (role for role, login in logins.items() if login == values.EMBEDDED):
            settings.fail(
                f"{role}_login", "must be a URL or empty: the embedded database has its own"
            )
        if url == values.EMBEDDED and any(logins.values()):
            settings.fail(
                "url", "must be a URL beside these logins: the embedded database has its own"
            )
        if not url and not any(logins.values()):
            settings.fail("url", "must say where the database is")
        return cls(url, logins)


def _database_url(settings: Settings, key: str) -> str:
    url = settings.text_or_file(key)
    try:
        values.check_database_url(url)
    except ValueError as error:
        settings.fail(key, str(error))
    if values.has_password(url) and not settings.from_environment(key):
        settings.fail_secret(key)
    return url
