"""Telephone numbers: one stored form, and the same recording found in any notation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.numbers import (
    _canonical,
    _terms,
    as_stored,
    e164,
    query_term,
    stored_terms,
    with_plus,
)

MOBILE = "+358401234567"

NOTATIONS = [
    "+358401234567",
    "+358 40 123 4567",
    "+358 (0)40 123 4567",
    "+358-40-1234567",
    "00358401234567",
    "00358 40 1234567",
    "358401234567",
    "0401234567",
    "040-123 4567",
    "(040) 123 4567",
    "040/123.4567",
    "040\u2011123\u20134567",
    "040\u00a0123\u00a04567",
    "\u202a+358401234567\u202c",
    "\uff10\uff14\uff101234567",
    " 040 1234567 ",
    "040 123 4567 ext. 12",
    "tel:+358-40-123-4567",
    "tel:+358401234567;ext=12",
    "TEL:0401234567",
    "sip:+358401234567@pbx.example.fi",
    "sip:+358401234567;phone-context=example@pbx.example.fi;user=phone",
    "sips:0401234567:secret@10.0.0.1:5061",
    "sip:%2B358401234567@pbx.example.fi",
    '"Asiakas" <sip:+358401234567@pbx.example.fi>;tag=abc',
]

PLAIN = ["3201", "201", "anonymous", "Anonymous", "116117", "*97#", "unknown", "+12", "12345678"]


def terms_of(raw: str) -> list[str]:
    return stored_terms(as_stored(raw))


@pytest.mark.parametrize("raw", NOTATIONS)
def test_every_notation_is_the_same_number(raw: str) -> None:
    assert as_stored(raw) == MOBILE
    assert query_term(raw) == MOBILE
    assert terms_of(raw) == terms_of(MOBILE)


@pytest.mark.parametrize(
    ("raw", "stored"),
    [
        ("09 1234", "+35891234"),
        ("020 012 345", "+35820012345"),
        ("+46 8 401 61 00", "+4684016100"),
        ("0046 8 401 61 00", "+4684016100"),
        ("+1 800 555 0199", "+18005550199"),
        ("+3584012345", "+3584012345"),
    ],
)
def test_numbers_of_any_country_become_e164(raw: str, stored: str) -> None:
    assert e164(raw) == stored


@pytest.mark.parametrize("raw", PLAIN)
def test_what_is_no_number_of_a_country_stays_as_it_was_sent(raw: str) -> None:
    assert e164(raw) is None
    assert as_stored(f" {raw} ") == raw


def test_letters_never_become_digits() -> None:
    assert e164("0800 SOITA NYT") is None
    assert as_stored("1-800-FLOWERS") == "1-800-FLOWERS"


def test_a_whole_number_is_found_by_its_last_four_to_seven_digits() -> None:
    terms = terms_of(MOBILE)
    for tail in ("4567", "34567", "234567", "1234567", "123 4567"):
        assert query_term(tail) in terms
    assert len(terms) == 5


@pytest.mark.parametrize("query", ["4568", "567", "401234567890", "0123456", "8401234567"])
def test_another_number_does_not_find_it(query: str) -> None:
    assert query_term(query) not in terms_of(MOBILE)


def test_a_short_finnish_number_is_found_as_it_is_dialled_at_home() -> None:
    assert query_term("09 1234") in terms_of("+358 9 1234")


def test_an_internal_number_is_found_by_itself_in_any_spacing() -> None:
    assert query_term("3201") in terms_of("3201")
    assert query_term("32 01") in terms_of("3201")
    assert query_term("201") in terms_of("201")
    assert query_term("201") not in terms_of("3201")


def test_a_name_is_found_without_regard_to_case() -> None:
    assert query_term("ANONYMOUS") in terms_of("Anonymous")
    assert query_term("reception") in terms_of("sip:Reception@pbx.example.fi")


def test_a_whole_number_never_looks_like_the_end_of_another() -> None:
    assert set(terms_of("+3581234567890")[1:]).isdisjoint({"7890", "+7890"})
    assert query_term("+7890") not in terms_of("+3581234567890")


def test_a_blank_text_is_found_by_nothing() -> None:
    assert terms_of("  ") == []
    assert as_stored("  ") == ""


_texts = st.one_of(
    st.text(max_size=40),
    st.text("0123456789", min_size=1, max_size=16),
    st.text("0123456789+-() ./", max_size=24),
    st.from_regex(r"(\+|00|0)?(358|46|1)?[0-9]{3,12}( ?(ext|x) ?[0-9]{1,3})?", fullmatch=True),
    st.from_regex(r"(sips?|tel):[+0-9a-z;:=%-]{1,16}(@[a-z.]{1,8})?", fullmatch=True),
)


@given(_texts)
def test_what_was_stored_is_found_by_what_was_sent(raw: str) -> None:
    stored = as_stored(raw)
    assert terms_of(stored) == terms_of(raw) == _terms(_canonical(raw))
    assert as_stored(stored) == stored
    if terms := terms_of(raw):
        assert query_term(stored) in terms
        assert query_term(raw) in terms


@given(_texts)
def test_e164_is_a_plus_and_digits_or_nothing(raw: str) -> None:
    found = e164(raw)
    assert found is None or (found[0] == "+" and found[1:].isdigit() and 7 <= len(found[1:]) <= 16)


@given(st.integers(40_000_0000, 50_999_9999))
def test_finnish_mobile_numbers_agree_in_every_notation(national: int) -> None:
    written = [f"+358{national}", f"00358{national}", f"358{national}", f"0{national}"]
    stored = {as_stored(text) for text in written if e164(f"0{national}")}
    assert stored <= {f"+358{national}"}


@given(_texts)
def test_what_was_stored_is_found_by_the_same_without_being_read_again(raw: str) -> None:
    stored = as_stored(raw)
    assert stored_terms(stored) == _terms(_canonical(stored))


@pytest.mark.parametrize("number", ["46 8 401 61 00", "18005550199", "358 40 123 4567"])
def test_a_space_is_a_plus_where_it_makes_a_number(number: str) -> None:
    assert with_plus(f" {number}") == f"+{number}"


@pytest.mark.parametrize(
    "text", ["46 8 401 61 00", " 040 123 4567", " 3201", " anonymous", " ", ""]
)
def test_any_other_space_stays_one(text: str) -> None:
    assert with_plus(text) == text


@pytest.mark.parametrize(
    "text",
    [f" x{' ' * 60_000}x", f'"{"x" * 300}" <sip:{MOBILE}>'],
    ids=["blanks", "an address"],
)
def test_what_is_longer_than_a_field_may_be_is_left_as_it_is(text: str) -> None:
    assert with_plus(text) == text
    assert e164(text) is None
    assert as_stored(text) == text.strip()
    assert stored_terms(text) == [text]
    assert query_term(text) == text
