"""The words of the pages, in the language of whoever reads them.

The source texts are English; `web/locales/` has a catalogue (gettext) for each other language, and
a test holds that none lacks a text. Days, times and numbers are written as the language does.
"""

import io
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from gettext import NullTranslations
from importlib.resources import files
from typing import Literal

from babel import Locale, dates, numbers
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import Translations

LANGUAGES = {"fi": "Suomi", "sv": "Svenska", "en": "English"}

_LOCALES = {"fi": "fi_FI", "sv": "sv_FI", "en": "en_GB"}


def marked(text: str) -> str:
    """Mark a text for the catalogues where it stands, to be translated where it is shown."""
    return text


@dataclass(frozen=True, slots=True)
class Words:
    """One language: its texts, and how it writes what is measured."""

    language: str
    locale: Locale
    catalogue: NullTranslations

    def text(self, text: str, **values: object) -> str:
        """A text in this language, its places filled in."""
        said = self.catalogue.gettext(text)
        return said % values if values else said

    def pgettext(self, context: str, text: str) -> str:
        """A text that is said otherwise here (`context`) than where `text` says it."""
        return self.catalogue.pgettext(context, text)

    def count(self, one: str, many: str, number: int) -> str:
        """A text that tells of a number of things."""
        said = self.catalogue.ngettext(one, many, number)
        return said % {"n": self.number(number)}

    def day(self, day: date, form: Literal["short", "medium", "full"] = "medium") -> str:
        return dates.format_date(day, form, locale=self.locale)

    def month(self, day: date) -> str:
        return dates.format_skeleton("yMMMM", day, locale=self.locale)

    def time(self, moment: datetime, form: Literal["short", "medium"] = "short") -> str:
        """The time of day of a moment in the zone that it is in."""
        return dates.format_time(moment, form, tzinfo=moment.tzinfo, locale=self.locale)

    def moment(self, moment: datetime) -> str:
        """Day and time of a moment in the zone that it is in."""
        return f"{self.day(moment.date(), 'full')} {self.time(moment)}"

    def number(self, number: float) -> str:
        return numbers.format_decimal(number, locale=self.locale)


def length(seconds: float) -> str:
    """A duration as players show it: 1:02:03, or 2:03."""
    whole = int(seconds + 0.5)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@cache
def words(language: str) -> Words:
    """The words of one of `LANGUAGES`."""
    return Words(language, Locale.parse(_LOCALES[language]), _catalogue(language))


def _catalogue(language: str) -> NullTranslations:
    if language == "en":
        return NullTranslations()
    source = files("web").joinpath(f"locales/{language}.po").read_bytes()
    held = io.BytesIO()
    write_mo(held, read_po(io.BytesIO(source), locale=language))
    held.seek(0)
    return Translations(held)


def chosen(cookie: str | None, accepted: str) -> str:
    """The language that a person chose, or else the first that the browser asks for."""
    if cookie in LANGUAGES:
        return cookie
    ranked: list[tuple[float, str]] = []
    for part in accepted.split(",")[:20]:
        name, _, weight = part.partition(";q=")
        ranked.append((_weight(weight), name.strip()[:2].casefold()))
    for rank, name in sorted(ranked, key=lambda pair: pair[0], reverse=True):
        if rank > 0 and name in LANGUAGES:
            return name
    return "fi"


def _weight(text: str) -> float:
    try:
        return float(text or "1")
    except ValueError:
        return 0.0
