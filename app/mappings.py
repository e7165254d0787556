"""The mappings of the configuration: one section for each way in that telephony systems come by."""

from collections.abc import Mapping, Sequence

from app.settings import Settings
from archive.mapping import FIELDS, REQUIRED, Reading

WAYS = ("freeswitch", "kazoo", "rtpengine")
"""The ways in that read what a system says by a mapping."""


def section(way: str) -> str:
    """What its section is called."""
    return f"mapping.{way}"


def from_toml(sections: Mapping[str, Settings]) -> dict[str, Reading]:
    """Read `[mapping.NAME]` of every way."""
    return {way: _reading(sections[section(way)]) for way in WAYS}


def _reading(settings: Settings) -> Reading:
    fields = {name: settings.texts(name, required=name in REQUIRED) for name in FIELDS}
    paths, words = settings.texts("path"), settings.texts("words")
    for name, texts in fields.items():
        _check(settings, name, {name: texts})
    _check(settings, "path", {}, paths)
    _check(settings, "words", {}, (), words)
    return Reading.from_texts(fields, paths, words)


def _check(
    settings: Settings,
    key: str,
    fields: Mapping[str, Sequence[str]],
    paths: Sequence[str] = (),
    words: Sequence[str] = (),
) -> None:
    try:
        Reading.from_texts(fields, paths, words)
    except ValueError as error:
        settings.fail(key, f"is wrong: {error}")
