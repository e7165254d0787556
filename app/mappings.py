"""The mappings of the configuration: one section for each way in that telephony systems come by."""

from collections.abc import Mapping, Sequence

from app.settings import Settings
from archive.mapping import FIELDS, Reading
from archive.sidecar import check_form

WAYS = ("freeswitch", "kazoo", "rtpengine")
"""The addresses that read what a system says by a mapping."""

BUCKETS = ("genesys", "jambonz", "twilio_s3", "rtpengine_s3", "freeswitch_s3")
"""The systems that write into a bucket, as far as their mapping is ready."""


def section(way: str) -> str:
    """What its section is called."""
    return f"mapping.{way}"


def from_toml(sections: Mapping[str, Settings]) -> dict[str, Reading]:
    """Read every `[mapping.NAME]`."""
    begin = section("")
    return {
        name.removeprefix(begin): _reading(settings, bucket=name.removeprefix(begin) not in WAYS)
        for name, settings in sections.items()
        if name.startswith(begin)
    }


def _reading(settings: Settings, *, bucket: bool) -> Reading:
    # Of a bucket, `[[landing]]` may say the call type.
    needed = ("call_id", "started_at", *(() if bucket else ("call_type",)))
    fields = {name: settings.texts(name, required=name in needed) for name in FIELDS}
    paths, words = settings.texts("path"), settings.texts("words")
    sidecar = settings.text("sidecar", "") if bucket else ""
    for name, texts in fields.items():
        _check(settings, name, {name: texts})
    _check(settings, "path", {}, paths)
    _check(settings, "words", {}, (), words)
    try:
        if sidecar:
            check_form(sidecar)
    except ValueError as error:
        settings.fail("sidecar", str(error))
    return Reading.from_texts(fields, paths, words, sidecar)


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
