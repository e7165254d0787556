"""What a person types into the one box of the search: days, numbers, names, all in one line.

A day or a span of days is read as Finnish, Swedish and English write it, whichever language the
page is in: `24.11.2026`, `1.-5.11.`, `24 november`, `Nov 2026`, `viime viikolla`, `yesterday`. A
day without a year is the last one that has been. `agent:` and its like, in each language, name a
field. What is left is looked for in every field: runs of digits each as one value, other words
together.

What cannot be a day (`31.2.`) is no day, but text. Nothing is refused: the page shows how it
understood the line, and the person corrects it.
"""

import calendar
import re
from dataclasses import dataclass
from datetime import date, timedelta

from archive.recording import LONGEST, is_text

ANYTHING = "anything"
"""The name of a part that may be in any field."""


MOST = 8
"""Parts of a line that are looked for: each is looked for on every day that is kept."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A line as it was understood. `until` is the first day that is not meant any more.

    `parts` are pairs of a field, or `ANYTHING`, and what is to be in it; `more` of them were there
    than are looked for.
    """

    since: date | None = None
    until: date | None = None
    parts: tuple[tuple[str, str], ...] = ()
    more: bool = False


def understand(line: str, today: date) -> Asked:
    """Read a line; `today` is the day on which it was typed."""
    text = " ".join(line.split()) if is_text(" ".join(line.split())) else ""
    span, rest = _days(text, today)
    parts = tuple(
        (field, value[:LONGEST])
        for field, value in (*_fields(rest), *_loose(_FIELD.sub(" ", rest)))
        if value
    )
    return Asked(*(span or (None, None)), parts[:MOST], len(parts) > MOST)


def preset(name: str, today: date) -> tuple[date, date] | None:
    """The days of `today`, `yesterday`, `week` (the last 7), `month` and `last-month`."""
    first = today.replace(day=1)
    spans = {
        "today": (today, today + _DAY),
        "yesterday": (today - _DAY, today),
        "week": (today - 6 * _DAY, today + _DAY),
        "month": (first, _month_after(first)),
        "last-month": ((first - _DAY).replace(day=1), first),
    }
    return spans.get(name)


_DAY = timedelta(days=1)
_Span = tuple[date | None, date | None]

_MONTHS = (
    ("tammi", "jan", "january", "januari"),
    ("helmi", "feb", "february", "februari"),
    ("maalis", "mar", "march", "mars"),
    ("huhti", "apr", "april"),
    ("touko", "may", "maj"),
    ("kesä", "jun", "june", "juni"),
    ("heinä", "jul", "july", "juli"),
    ("elo", "aug", "august", "augusti"),
    ("syys", "sep", "sept", "september"),
    ("loka", "oct", "okt", "october", "oktober"),
    ("marras", "nov", "november"),
    ("joulu", "dec", "december"),
)
_MONTH = {name: number for number, names in enumerate(_MONTHS, 1) for name in names}

_NAMED = "(?:" + "|".join(sorted(_MONTH, key=len, reverse=True)) + r")(?:kuu[a-zåäö]*)?\.?"
_TH = r"(?:\.|st|nd|rd|th|:e)?"
_POINT = "|".join(
    (
        r"\d{4}-\d{1,2}-\d{1,2}",
        r"\d{1,2}\.\d{1,2}\.(?:\d{4}|\d{2})?",
        r"\d{1,2}/\d{1,2}(?:/(?:\d{4}|\d{2}))?",
        r"\d{1,2}[./]\d{4}",
        r"\d{4}-\d{1,2}",
        rf"(?:den )?\d{{1,2}}{_TH} {_NAMED}(?: \d{{4}})?",
        rf"{_NAMED} \d{{1,2}}{_TH},? \d{{4}}",
        rf"{_NAMED} \d{{4}}",
        rf"{_NAMED} \d{{1,2}}{_TH}",
        _NAMED,
    )
)
_DASH = "[-\u2010-\u2014]"
_TO = rf"(?: ?(?:{_DASH}|\.\.|/) ?| (?:to|till|until|through|asti|and|och|ja) )"
_BEFORE, _AFTER = r"(?<![^\s,;])", r"(?![^\s,;])"
_RANGE = re.compile(
    rf"{_BEFORE}(?:(?:from|från|between|mellan) )?(?P<a>{_POINT}|\d{{1,2}}\.?){_TO}"
    rf"(?P<b>{_POINT}){_AFTER}",
    re.IGNORECASE,
)
_FROM = re.compile(
    rf"{_BEFORE}(?:(?:since|from|från|sedan|alkaen) (?P<a>{_POINT})|(?P<b>{_POINT})"
    rf"(?: ?{_DASH}| alkaen)){_AFTER}",
    re.IGNORECASE,
)
_UPTO = re.compile(
    rf"{_BEFORE}(?:(?:(?:until|till|to|through) |{_DASH} ?)(?P<a>{_POINT})|(?P<b>{_POINT}) asti)"
    rf"{_AFTER}",
    re.IGNORECASE,
)
_ONE = re.compile(rf"{_BEFORE}(?P<a>{_POINT}){_AFTER}", re.IGNORECASE)

_WORDS = {
    "today": r"today|tänään|i ?dag",
    "yesterday": r"yesterday|eilen|i ?går",
    "week": r"(?:last |viimeiset |senaste )?(?:7 days|7 päivää|7 dagarna|7 dagar)",
    "month": r"this month|tässä kuussa|tämä kuu(?:kausi)?|denna månad|den här månaden",
    "last-month": r"last month|viime kuussa|viime kuu(?:kausi)?|förra månaden",
    "this-week": r"this week|tällä viikolla|tämä viikko|denna vecka|den här veckan",
    "last-week": r"last week|viime viikolla|viime viikko|förra veckan",
}
_WORD = {
    name: re.compile(rf"{_BEFORE}(?:{words}){_AFTER}", re.IGNORECASE)
    for name, words in _WORDS.items()
}


def _days(text: str, today: date) -> tuple[_Span | None, str]:
    """The first span of days that the text names, and the text without it."""
    for name, pattern in _WORD.items():
        if match := pattern.search(text):
            return _worded(name, today), _without(text, match)
    for pattern in (_RANGE, _FROM, _UPTO, _ONE):
        for match in pattern.finditer(text):
            if span := _span(pattern, match, today):
                return span, _without(text, match)
    return None, text


def _worded(name: str, today: date) -> _Span | None:
    monday = today - today.weekday() * _DAY
    if name == "this-week":
        return monday, monday + 7 * _DAY
    if name == "last-week":
        return monday - 7 * _DAY, monday
    return preset(name, today)


def _without(text: str, match: re.Match[str]) -> str:
    return f"{text[: match.start()]} {text[match.end() :]}".strip(" ,;")


def _span(pattern: re.Pattern[str], match: re.Match[str], today: date) -> _Span | None:
    if pattern is _RANGE:
        return _between(match["a"], match["b"], today)
    found = _point(match["a"] or match["b"] if pattern is not _ONE else match["a"])
    days = found and found.days(today)
    if not days:
        return None
    if pattern is _FROM:
        return days[0], None
    if pattern is _UPTO:
        return None, days[1]
    return days


@dataclass(frozen=True, slots=True)
class _Point:
    """A day, or a month, as far as it is said."""

    year: int | None
    month: int | None
    day: int | None

    def days(self, today: date) -> tuple[date, date] | None:
        """The first day of it and the first one after it; the last that was, without a year."""
        if self.month is None:
            return None
        if self.year is not None:
            return self._in(self.year)
        # Back to the last leap year, at most.
        for year in range(today.year, today.year - 9, -1):
            if (found := self._in(year)) and found[0] <= today:
                return found
        return None

    def _in(self, year: int) -> tuple[date, date] | None:
        try:
            first = date(year, self.month or 1, self.day or 1)
            return first, first + _DAY if self.day else _month_after(first)
        except (ValueError, OverflowError):
            return None


def _between(first: str, last: str, today: date) -> _Span | None:
    end = _point(last)
    start = _point(first) or _Point(None, None, int(first.rstrip(".")))
    days = end and end.days(today)
    if not (end and days):
        return None
    year, month = start.year, start.month or end.month
    begin = _Point(year or days[0].year, month, start.day).days(today)
    if begin and year is None and begin[0] > days[0]:
        begin = _Point(days[0].year - 1, month, start.day).days(today)
    if not begin or (start.month is None and end.day is None):
        return None
    return (begin[0], days[1]) if begin[0] < days[1] else (days[0], begin[1])


def _point(text: str) -> _Point | None:
    """Read one day or month; None for a mere number."""
    words = text.casefold().replace(",", " ").removeprefix("den ").split()
    if (months := [number for word in words if (number := _month(word))]) and len(months) == 1:
        numbers = [int(re.sub(r"\D", "", word)) for word in words if word[0].isdigit()]
        year = next((each for each in numbers if each > 99), None)
        return _Point(year, months[0], next((each for each in numbers if each < 100), None))
    numbers = [int(part) for part in re.findall(r"\d+", text)]
    if re.fullmatch(r"\d{4}-.+", text):
        return _Point(numbers[0], numbers[1], numbers[2] if len(numbers) > 2 else None)
    if len(numbers) == 2 and numbers[1] > 99:
        return _Point(numbers[1], numbers[0], None)
    if len(numbers) < 2:
        return None
    year = numbers[2] if len(numbers) > 2 else None
    return _Point(year + 2000 if year is not None and year < 100 else year, numbers[1], numbers[0])


def _month(word: str) -> int | None:
    return _MONTH.get(re.sub(r"kuu\w*$", "", word.rstrip(".")))


def _month_after(first: date) -> date:
    return first + calendar.monthrange(first.year, first.month)[1] * _DAY


_NAMES = {
    "number": "number|numero|nummer|puh|tel",
    "agent": "agent|agentti|handläggare|käsittelijä",
    "customer": "customer|asiakas|kund",
    "contract": "contract|sopimus|avtal",
    "queue": "queue|jono|kö",
    "call_id": "call|puhelu|samtal|id",
}
_FIELD = re.compile(
    r"(?<!\S)(?:"
    + "|".join(f"(?P<{field}>{names})" for field, names in _NAMES.items())
    + r"): ?(?:\"(?P<quoted>[^\"]*)\"?|(?P<plain>.*?)(?=$| \w+:))",
    re.IGNORECASE,
)
_NUMERIC = re.compile(r"[+(]?[\d(][\d()./\-\u2010-\u2015]*")


def _fields(text: str) -> list[tuple[str, str]]:
    """The parts whose field is named."""
    return [
        (
            next(field for field in _NAMES if match[field]),
            (match["quoted"] or match["plain"] or "").strip(),
        )
        for match in _FIELD.finditer(text)
    ]


def _loose(text: str) -> list[tuple[str, str]]:
    """The other parts: digits that stand together, and words that do."""
    groups: list[list[str]] = []
    numeric = None
    for word in text.split():
        digits = bool(_NUMERIC.fullmatch(word))
        if not groups or digits != numeric or word.startswith("+"):
            groups.append([])
        groups[-1].append(word)
        numeric = digits
    return [(ANYTHING, " ".join(group).strip(" ,;")) for group in groups]
