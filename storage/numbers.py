"""Telephone numbers: one form to store, and what a stored number is found by.

Systems write the same number in many ways: `+358 40 123 4567`, `00358401234567`, `040-1234567`,
`tel:` and `sip:` addresses. What can be read as a number of some country becomes E.164; a number
without a country belongs to Finland. What cannot (an internal number like `3201`, `anonymous`)
stays as it was sent, and is compared without regard to case and to the signs between its digits.

A search term is either a whole number or its last 4 to 7 digits; the two kinds never mix, so that
`3201` finds the internal number and every number that ends in it, and a whole number only itself.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import phonenumbers
from phonenumbers import (
    CountryCodeSource,
    NumberParseException,
    PhoneNumber,
    PhoneNumberFormat,
    ValidationResult,
)

from archive.recording import LONGEST

COUNTRY = "FI"
"""The country that a number without a country belongs to."""

SHORTEST_TAIL, LONGEST_TAIL = 4, 7
"""How many last digits of a number may be searched for."""

_TAIL = "…"
_BETWEEN = r"\s().\-/\u2010-\u2015\u2212"
_DIGITS = re.compile(rf"\+?[\d{_BETWEEN}]*\d[{_BETWEEN}]*", re.ASCII)
_E164 = re.compile(r"\+\d{8,15}", re.ASCII)
_EXTENSION = re.compile(r"\s*(?:;?ext\.?|x|alanumero|ankn\.?)\s*=?\s*\d{1,7}\s*$", re.IGNORECASE)
_ADDRESS = re.compile(
    r"(?:.*<)?\s*(?:sips?|tel):([^;@>?]+)[^>]*(?:>.*)?", re.IGNORECASE | re.DOTALL
)
_INTERNATIONAL = (
    CountryCodeSource.FROM_NUMBER_WITH_PLUS_SIGN,
    CountryCodeSource.FROM_NUMBER_WITH_IDD,
)


def e164(raw: str) -> str | None:
    """The number as `+` and digits, or None if the text is no number of a country.

    A number that names its country need only have a possible length, since numbering plans grow
    faster than tables of them. One that does not must be in use in Finland and not look like an
    internal number: at least 7 digits, or a leading 0.
    """
    text = _bare(raw)
    if not _DIGITS.fullmatch(text):
        return None
    number = _parsed(text)
    if number is None or not _dialled(number, text):
        return None
    # A run of zeros is cut anew each time it is read; what is stored must be read as itself.
    found = phonenumbers.format_number(number, PhoneNumberFormat.E164)
    again = _parsed(found)
    stable = again and phonenumbers.format_number(again, PhoneNumberFormat.E164) == found
    return found if stable and found[0] == "+" and len(found) > LONGEST_TAIL else None


def as_stored(raw: str) -> str:
    """E.164 where the text can be read as a number, else the text without the space around it."""
    return e164(raw) or raw.strip()


def shown(stored: str) -> str:
    """A number as people read it, `+358 40 1234567`; what is not E.164 stays as it is."""
    number = _parsed(stored) if _E164.fullmatch(stored) else None
    if number is None:
        return stored
    return phonenumbers.format_number(number, PhoneNumberFormat.INTERNATIONAL)


def with_plus(asked: str) -> str:
    """The number of a query that was not percent-encoded, where a `+` arrives as a space.

    A space stays one where a `+` would make no number of it.
    """
    meant = f"+{asked[1:]}"
    return meant if asked.startswith(" ") and e164(meant) else asked


def as_meant(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The same fields of a call, its two numbers read by `with_plus` where they are texts."""
    meant = dict(fields)
    for name in ("caller", "callee"):
        if isinstance(number := meant.get(name), str):
            meant[name] = with_plus(number)
    return meant


def stored_terms(stored: str) -> list[str]:
    """What a number that `as_stored` gave is to be found by: itself, and its last 4 to 7 digits.

    Empty for a blank text.
    """
    # E.164 is not read a second time.
    return _terms(stored if _E164.fullmatch(stored) else _canonical(stored))


def _terms(whole: str) -> list[str]:
    digits = _digits(whole)
    tails = {digits[-length:] for length in _LENGTHS if len(digits) >= length}
    if whole.startswith("+358") and len(digits) - 2 <= LONGEST_TAIL:
        tails.add("0" + digits[3:])  # a short number of Finland, as it is dialled at home
    return [whole, *sorted(_TAIL + tail for tail in tails)] if whole else []


def query_term(raw: str) -> str:
    """The one term that a search for this text looks for, among those of `stored_terms`.

    4 to 7 digits alone mean the end of a number, all else a whole number in any notation.
    """
    text = _plain(_bare(raw))
    if text.isascii() and text.isdigit() and SHORTEST_TAIL <= len(text) <= LONGEST_TAIL:
        return _TAIL + text
    return _canonical(raw)


_LENGTHS = range(SHORTEST_TAIL, LONGEST_TAIL + 1)


def _parsed(text: str) -> PhoneNumber | None:
    try:
        return phonenumbers.parse(text, COUNTRY, keep_raw_input=True)
    except NumberParseException:
        return None


def _dialled(number: PhoneNumber, text: str) -> bool:
    if number.country_code_source in _INTERNATIONAL:
        result: int = phonenumbers.is_possible_number_with_reason(number)
        return result == ValidationResult.IS_POSSIBLE
    digits = _digits(text)
    if not digits.startswith("0") and len(digits) < LONGEST_TAIL:
        return False
    return bool(phonenumbers.is_valid_number(number))


def _canonical(raw: str) -> str:
    return e164(raw) or _plain(_bare(raw))


def _bare(raw: str) -> str:
    """What was dialled, out of the address, the invisible signs and the extension around it.

    A text that is longer than a field may be stays as it is, and is refused for that: looking for
    an extension costs the square of its length.
    """
    if len(raw) > LONGEST:
        return raw
    text = unicodedata.normalize("NFKC", raw)
    text = "".join(sign for sign in text if unicodedata.category(sign) != "Cf").strip()
    if address := _ADDRESS.fullmatch(text):
        text = unquote(address[1]).partition(":")[0].strip()
    extension = _EXTENSION.search(text)
    number = text[: extension.start()] if extension else text
    return number if _DIGITS.fullmatch(number) else text


def _plain(text: str) -> str:
    if _DIGITS.fullmatch(text):
        return re.sub(f"[{_BETWEEN}]", "", text)
    return text.casefold()


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text) if _DIGITS.fullmatch(text) else ""
