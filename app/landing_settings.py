"""The landing buckets of the configuration: `[[landing]]`, once for each of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.object_store import Objects
from app.settings import ConfigError, Settings
from archive.mapping import Reading
from archive.recording import CallType

TABLE = "landing"
USUAL = {"prefix": "", "call_type": "", "region": "us-east-1", "ca": "", "replicas": []}
"""What a landing bucket need not say."""

_NAME = re.compile("[a-z0-9]{1,32}")
"""Without an underscore, so that no variable of one is another's."""


@dataclass(frozen=True, slots=True)
class Place:
    """One `[[landing]]`; `objects` is its store. What the rest means: `storage.landing.Landing`."""

    name: str
    key: str
    prefix: str
    reading: Reading
    objects: Objects

    @classmethod
    def from_toml(
        cls, settings: Settings, name: str, objects: Objects, mappings: Mapping[str, Reading]
    ) -> "Place":
        """Read one; `objects` was read from the same section."""
        if objects.embedded:
            settings.fail(
                "endpoint", "must be http:// or https:// and the S3 server others write to"
            )
        system, call_type = settings.text("mapping"), settings.text("call_type")
        if system not in mappings:
            settings.fail("mapping", "must name a [mapping.NAME] of this file")
        reading = mappings[system]
        if call_type not in (*CallType, *([""] if reading.fields["call_type"] else [])):
            settings.fail("call_type", "must be one of " + ", ".join(CallType))
        if call_type:
            reading = reading.otherwise("call_type", call_type)
        return cls(name, settings.text("key"), settings.text("prefix"), reading, objects)


def sections(
    path: Path, document: Mapping[str, object], environ: Mapping[str, str]
) -> dict[str, Settings]:
    """The keys of each `[[landing]]`, by its name. Raises ConfigError."""
    tables = document.get(TABLE, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(str(path), TABLE, None, "is written as [[landing]], once for each bucket")
    found: dict[str, Settings] = {}
    for table in tables:
        rest = {**USUAL, **table}
        name = rest.pop("name", None)
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in found:
            problem = "must be a name of its own, of small letters and digits"
            raise ConfigError(str(path), TABLE, "name", problem)
        found[name] = Settings(path, f"{TABLE}.{name}", rest, environ)
    return found


def check_apart(places: Sequence[Place], own: Objects, sections: Mapping[str, Settings]) -> None:
    """Refuse the archive's own bucket, of which nothing is taken for another's."""
    for place in places:
        if (place.objects.endpoint, place.objects.bucket) == (own.endpoint, own.bucket):
            sections[place.name].fail("bucket", "must be another than the archive's own")
