"""Where an object store is, and its keys, as a section of the configuration says it."""

from dataclasses import dataclass, field
from pathlib import Path

from app import values
from app.settings import Settings
from archive.residency import EEA


@dataclass(frozen=True, slots=True)
class Objects:
    """The object store. Keys are "" when it is embedded: that one makes its own."""

    endpoint: str
    bucket: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    ca: Path | None
    region: str
    country: str
    replicas: frozenset[str]

    @property
    def embedded(self) -> bool:
        return self.endpoint == values.EMBEDDED

    @classmethod
    def from_toml(cls, settings: Settings) -> "Objects":
        """Read `[objects]`. Refuses a country outside the EU and the EEA, and keys half given."""
        return cls(
            endpoint=(endpoint := settings.parsed("endpoint", values.endpoint)),
            bucket=settings.parsed("bucket", values.bucket),
            access_key=_store_key(settings, "access_key", endpoint),
            secret_key=_store_key(settings, "secret_key", endpoint),
            ca=settings.optional_path("ca", None),
            region=settings.parsed("region", values.region),
            country=settings.parsed("country", values.country),
            replicas=settings.words("replicas", EEA, least=0),
        )


def _store_key(settings: Settings, key: str, endpoint: str) -> str:
    value = settings.secret(key)
    if endpoint == values.EMBEDDED and value:
        settings.fail(key, "is not taken: the embedded store makes its own; name an endpoint")
    if endpoint != values.EMBEDDED and not value:
        settings.fail(key, f"set {settings.variable(key)} or {settings.variable(key)}_FILE")
    return value
